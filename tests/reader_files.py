"""One file of a branch, as docs/format.md describes it: its rendering, its schema and its signatures. `reader.py` reads the branch."""

import base64
import datetime
import functools
import hashlib
import json
import os
import re

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

FORMAT = 1
SCHEMAS = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "schemas")
P = 2**255 - 19
ORDER_8 = int.from_bytes(bytes.fromhex("26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05"), "little")
LOW_ORDER = {0, 1, ORDER_8, P - ORDER_8, P - 1, P, P + 1}


class Refused(Exception):
    """The reader refuses the branch; the keyword says what is wrong."""

    def __init__(self, keyword, why):
        super().__init__(f"{keyword}: {why}")
        self.keyword = keyword


class Newer(Refused):
    """A file that was written for a newer reader."""


def check(condition, keyword, why):
    if not condition:
        raise Refused(keyword, why)


# Rendering


def canonical(value):
    return json.dumps(value, sort_keys=True, ensure_ascii=False, separators=(",", ":")).encode()


def rendering(value):
    return json.dumps(value, sort_keys=True, ensure_ascii=False, indent=2).encode() + b"\n"


def check_value(value, depth=0):
    if isinstance(value, (dict, list)):
        depth += 1
        check(depth <= 32, "malformed", "too deep")
    if isinstance(value, dict):
        for key in value:
            check(re.fullmatch(r"[ !#-\[\]-~]{1,256}", key), "malformed", f"the key {key!r}")
    if isinstance(value, int):
        check(0 <= value < 2**53, "malformed", f"the number {value}")
    check(not isinstance(value, float), "malformed", "a fraction")
    for inner in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        check_value(inner, depth)


def once(pairs):
    check(len(dict(pairs)) == len(pairs), "malformed", "a key twice")
    return dict(pairs)


def parse(data, limit):
    check(len(data) <= limit, "malformed", "too long")
    try:
        value = json.loads(data.decode(), object_pairs_hook=once)
        check_value(value)
        check(rendering(value) == data, "malformed", "other bytes than those of its rendering")
    except (ValueError, RecursionError) as error:
        raise Refused("malformed", error) from error
    return value


# Schemas: the few words of JSON Schema that the files in `schemas/` use


@functools.cache
def schema_of(kind):
    """The schema of what is signed, or of a bin."""
    with open(os.path.join(SCHEMAS, f"{kind.lower()}.schema.json"), "rb") as file:
        schema = json.load(file)
    return schema if kind == "Bin" else schema["properties"]["signed"], schema["$defs"]


@functools.cache
def signature_schema():
    definitions = schema_of("Root")[1]
    return definitions["Signature"], definitions


def resolved(schema, definitions):
    return definitions[schema["$ref"].rpartition("/")[2]] if "$ref" in schema else schema


def fits(value, schema, definitions):
    schema = resolved(schema, definitions)
    if schema is definitions.get("Timestamp") and not is_time(value):
        return False
    types = {"object": dict, "array": list, "string": str, "integer": int, "null": type(None)}
    for one in ("anyOf", "oneOf"):
        if one in schema and not any(fits(value, option, definitions) for option in schema[one]):
            return False
    if "type" in schema and (not isinstance(value, types[schema["type"]]) or isinstance(value, bool)):
        return False
    if "const" in schema and value != schema["const"] or "pattern" in schema and not re.fullmatch(schema["pattern"], value, re.ASCII):
        return False
    if isinstance(value, int):
        return schema.get("minimum", 0) <= value <= schema.get("maximum", value)
    if isinstance(value, list):
        return len(value) <= schema.get("maxItems", len(value)) and all(fits(v, schema["items"], definitions) for v in value)
    if isinstance(value, dict):
        known, others = schema.get("properties", {}), schema.get("additionalProperties", True)
        return (
            all(key in value for key in schema.get("required", ()))
            and len(value) <= schema.get("maxProperties", len(value))
            and all(fits(key, schema.get("propertyNames", {}), definitions) for key in value)
            and all(fits(v, known.get(key, others), definitions) for key, v in value.items() if known.get(key, others) is not True)
        )
    return True


def is_time(text):
    try:
        datetime.datetime.strptime(text, "%Y-%m-%dT%H:%M:%SZ")
        return True
    except (TypeError, ValueError):
        return False


def is_known(path, schema, definitions):
    for part in path.split("."):
        schema = resolved(schema, definitions)
        schema = schema.get("properties", {}).get(part, schema.get("additionalProperties"))
        if schema is None:
            return False
    return True


def check_schema(value, kind):
    """Schema, format and `critical`, which say whether this reader understands the file, and its known fields."""
    check(isinstance(value, dict), "malformed", "no object")
    found = value.get("schema")
    if found != "clavel/v1" and isinstance(found, str) and re.fullmatch("clavel/v[0-9A-Za-z]{1,55}", found):
        raise Newer("newer", f"schema {found}")
    if kind == "Root" and isinstance(value.get("format"), int) and value["format"] > FORMAT:
        raise Newer("format", f"format {value['format']}")
    check(fits(value, *schema_of(kind)), "malformed", f"it does not fit the schema of a {kind}")
    if "critical" not in value:
        return
    critical = value["critical"]
    check(isinstance(critical, list) and 1 <= len(critical) <= 16, "malformed", "critical")
    check(all(isinstance(path, str) for path in critical), "malformed", "critical")
    for path in critical:
        here = value
        for part in path.split("."):
            check(isinstance(here, dict) and part in here, "malformed", f"{path} is not there")
            here = here[part]
        if not is_known(path, *schema_of(kind)):
            raise Newer("newer", f"the critical field {path}")


# Signatures


def key_bytes(text):
    """The 32 bytes of `NAME:BASE64`; None for a hardware key, whose signatures this reader ignores."""
    return base64.b64decode(text.partition(":")[2]) if not text.startswith("sk-") else None


def name_of(text):
    return text.split(" ")[2] if text.startswith("sk-") else text.partition(":")[0]


def ssh_string(data):
    return len(data).to_bytes(4, "big") + data


def unwrap_sshsig(blob, message, key):
    """The ed25519 signature in an `sshsig` blob, and what it signs; None if it is by another key or for another purpose."""
    for algorithm in (b"sha256", b"sha512"):
        signer = ssh_string(ssh_string(b"ssh-ed25519") + ssh_string(key))
        purpose = ssh_string(b"clavel") + ssh_string(b"") + ssh_string(algorithm)
        head = b"SSHSIG\0\0\0\1" + signer + purpose + b"\0\0\0\x53" + ssh_string(b"ssh-ed25519") + b"\0\0\0\x40"
        if blob.startswith(head) and len(blob) == len(head) + 64:
            return blob[-64:], b"SSHSIG" + purpose + ssh_string(hashlib.new(algorithm.decode(), message).digest())
    return None


def verifies(key, signature, message):
    if len(signature) != 64:
        signature, message = unwrap_sshsig(signature, message, key) or (b"", b"")
    points = (key, signature[:32])
    if len(signature) != 64 or any(int.from_bytes(point, "little") % 2**255 in LOW_ORDER for point in points):
        return False
    try:
        Ed25519PublicKey.from_public_bytes(key).verify(signature, message)
        return True
    except (InvalidSignature, ValueError):
        return False


def signatures_of(file):
    """The signatures of a form that this reader knows."""
    found = []
    for entry in file["signatures"]:
        text = entry.get("sig") if isinstance(entry, dict) else None
        if isinstance(text, str):
            try:
                signature = base64.b64decode(text, validate=True)
            except ValueError:
                signature = b""
            check(base64.b64encode(signature).decode() == text, "malformed", "a signature is not base64")
            if len(signature) == 64 or signature.startswith(b"SSHSIG"):
                schema, definitions = signature_schema()
                check(fits(entry, schema, definitions), "malformed", "a signature")
                found.append(signature)
    return found


def signers(file, role):
    """The different keys of the role that signed the file."""
    signed, kind = file["signed"], file["signed"]["kind"].lower()
    body, name = canonical(signed), f"application/vnd.clavel.{kind}.v1+json".encode()
    message = b"DSSEv1 %d %s %d %s" % (len(name), name, len(body), body)
    keys = {key for key in map(key_bytes, role["keys"]) if key}
    return {key for key in keys if any(verifies(key, signature, message) for signature in signatures_of(file))}


def open_signed(data, kind, limit=256 << 10):
    file = parse(data, limit)
    check(isinstance(file, dict) and isinstance(file.get("signed"), dict), "malformed", "no signed file")
    check(isinstance(file.get("signatures"), list) and len(file["signatures"]) <= 16, "malformed", "signatures")
    signatures_of(file)
    check_schema(file["signed"], kind)
    return file


def check_signed(file, role, who):
    check(len(signers(file, role)) >= role["threshold"], "signatures", f"not signed by enough of {who}")


def content_digest(file):
    return hashlib.sha256(canonical(file["signed"])).hexdigest()
