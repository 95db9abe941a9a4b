"""Identity: the Ed25519 key (RFC 8032) by which a roster knows a site; made once, kept in its workspace, never sent.

It signs set-up messages of secure sums and nothing else; Flower's node key is another one.
"""

import os
import stat
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, load_pem_private_key

from cohortium.common.errors import SiteError

FILE_NAME = "identity.pem"


def site_identity(workspace: Path) -> Ed25519PrivateKey:
    """The site's private key; made on first use, readable by its owner only.

    Raises
    ------
    SiteError
        The key file is no Ed25519 key, or others may read it.
    """
    path = workspace / FILE_NAME
    try:
        if not path.exists():
            _make(path)
        if stat.S_IMODE(path.stat().st_mode) & 0o077:
            raise SiteError(f"identity key {path}: others may read it; run chmod 600 on it")
        key = load_pem_private_key(path.read_bytes(), password=None)
    except (ValueError, TypeError):
        raise SiteError(f"identity key {path}: is no private key; restore it, or remove it and enrol anew") from None
    except OSError as broken:
        raise SiteError(f"identity key {path}: cannot be used ({broken.strerror}); check its permissions") from None
    if not isinstance(key, Ed25519PrivateKey):
        raise SiteError(f"identity key {path}: is not an Ed25519 key; restore it, or remove it and enrol anew")
    return key


def public_hex(key: Ed25519PrivateKey | Ed25519PublicKey) -> str:
    """The public half as a roster writes it: 64 hexadecimal digits."""
    public = key.public_key() if isinstance(key, Ed25519PrivateKey) else key
    return public.public_bytes_raw().hex()


def _make(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pem = Ed25519PrivateKey.generate().private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    draft = path.with_name(f"{path.name}.{os.getpid()}")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(pem)
            file.flush()
            os.fsync(file.fileno())
        os.link(draft, path)  # unlike rename, never replaces a key that another process made in the meantime
    except FileExistsError:
        pass
    finally:
        draft.unlink()
