"""Heads: the small network on top of frozen image features, in numpy, so that a score needs no torch.

A head is a multilayer perceptron with ReLU between its layers and one logit at its end; ``hidden = ()`` is a logistic
regression. Its weights travel and are stored as one flat float32 vector: for each layer the matrix (outputs, inputs)
in C order, then the bias (outputs,).
"""

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

Weights = NDArray[np.float32]
Layer = tuple[NDArray[np.floating], NDArray[np.floating]]


@dataclass(frozen=True, kw_only=True, slots=True)
class Head:
    """Shape of a head.

    Parameters
    ----------
    inputs : int
        Features of a patient.
    hidden : tuple of int
        Widths of the hidden layers, from the features to the logit (`head` of a study's network model).
    """

    inputs: int
    hidden: tuple[int, ...] = ()

    @property
    def shapes(self) -> tuple[tuple[int, int], ...]:
        """(outputs, inputs) of each layer."""
        widths = (self.inputs, *self.hidden, 1)
        return tuple((after, before) for before, after in pairwise(widths))

    @property
    def size(self) -> int:
        """Number of weights, biases included."""
        return sum(outputs * (inputs + 1) for outputs, inputs in self.shapes)

    def layers(self, weights: Weights) -> list[Layer]:
        """Views of a flat vector: (matrix (outputs, inputs), bias (outputs,)) of each layer.

        Raises
        ------
        ValueError
            The vector is not one of this head.
        """
        if weights.shape != (self.size,):
            raise ValueError(
                f"a head {self.inputs} -> {list(self.hidden)} -> 1 has {self.size} weights, "
                f"not an array of shape {weights.shape}"
            )
        layers, at = [], 0
        for outputs, inputs in self.shapes:
            end = at + outputs * inputs
            layers.append((weights[at:end].reshape(outputs, inputs), weights[end : end + outputs]))
            at = end + outputs
        return layers

    def initial_weights(self, rng: np.random.Generator) -> Weights:
        """He-normal matrices (He et al., ICCV 2015), the logit's scaled down to start near a probability of 1/2."""
        parts = []
        for outputs, inputs in self.shapes:
            # the last layer feeds no ReLU: variance 1/n of Glorot & Bengio (AISTATS 2010), a tenth of it in scale
            scale = np.sqrt(2.0 / inputs) if outputs > 1 else 0.1 / np.sqrt(inputs)
            parts += [rng.normal(0.0, scale, outputs * inputs), np.zeros(outputs)]
        return np.concatenate(parts).astype(np.float32)

    def linear_predictor(self, weights: Weights, x: NDArray[np.floating]) -> NDArray[np.float64]:
        """Logit of each patient, in float64.

        Parameters
        ----------
        weights : (size,) float32
        x : (n_patients, inputs)
            Standardised as in training.

        Returns
        -------
        (n_patients,) float64
        """
        *hidden, (matrix, bias) = self.layers(weights)
        signal = np.asarray(x, dtype=np.float64)
        for inner, offset in hidden:
            signal = np.maximum(signal @ inner.T.astype(np.float64) + offset, 0.0)
        return signal @ matrix[0].astype(np.float64) + float(bias[0])
