"""A second reader of a branch, written from docs/format.md, to prove that the page is enough.

    python3 tests/reader.py FOLDER...

A FOLDER has the files of a branch in `branch/`, and `case.json`, which says who reads them, when, and which first root the reader
trusts. For each the reader prints a line of JSON: the deployments that the agent would run, or a keyword for why it refuses the branch.
It remembers nothing of earlier rounds, and compares a unit's arch with the machine's, but not its type. It ignores the signatures of
hardware keys, does not look whether an `sshsig` blob by another key is well-formed, and does not see that a key has a part of low order.
"""

import datetime
import hashlib
import json
import os
import re
import stat
import sys

from reader_files import Newer, Refused, check, check_schema, check_signed, content_digest, name_of, open_signed, parse, signatures_of, signers

FOLDERS = {"agents": "Agent", "deployments": "Deployment", "units": "Unit"}
NAME = re.compile(r"[A-Za-z0-9_@][A-Za-z0-9._@-]{0,127}")


def matches(pattern, name):
    """Whether a pattern of a root matches a name."""
    return re.fullmatch(re.escape(pattern.lower()).replace(r"\*", ".*").replace(r"\?", "."), name.lower())


def check_root(root):
    """What holds for each root by itself."""
    for role in ("root", "publisher", "approver"):
        keys, threshold = root["roles"][role]["keys"], root["roles"][role]["threshold"]
        different = {key.partition(":")[2] or key.split(" ")[1] for key in keys}
        needed = max([threshold, *(policy["approvals"] for policy in root["approvals"] if role == "approver")])
        unused = role == "approver" and not keys and not root["approvals"]
        check(unused or len(different) >= needed, "keys", f"too few keys in the role {role}")
    names = [name_of(key) for key in root["roles"]["approver"]["keys"]]
    check(all(map(NAME.fullmatch, names)) and len({n.lower() for n in names}) == len(names), "keys", "names of approvers")
    check((root.get("fleet") is None) == (root["version"] == 1), "roots", "the first root names no fleet, and every other one does")


class Branch:
    def __init__(self, folder, case):
        self.folder, self.case = folder, case
        now = case["now"]
        self.now = datetime.datetime.fromisoformat(now.replace("Z", "+00:00"))

    def read(self, path):
        try:
            with open(os.path.join(self.folder, path), "rb") as file:
                return file.read()
        except (FileNotFoundError, IsADirectoryError, NotADirectoryError) as error:
            raise Refused("missing", path) from error

    def entries(self, path):
        """The names in a folder, folders with a slash behind."""
        full = os.path.join(self.folder, path)
        names = []
        for name in sorted(os.listdir(full)) if os.path.isdir(full) else ():
            mode = os.lstat(os.path.join(full, name)).st_mode
            check(stat.S_ISDIR(mode) or stat.S_ISREG(mode) and not mode & 0o111, "layout", f"{path}/{name}: its mode")
            names.append(name + "/" * stat.S_ISDIR(mode))
        folded = {name.rstrip("/").lower() for name in names}
        check(len(folded) == len(names), "layout", f"{path}: names that differ only in case")
        return names

    def check_layout(self, path, allowed, most=8192):
        names = self.entries(path)
        check(len(names) <= most, "layout", f"too much in {path}")
        for name in names:
            check(name in allowed if isinstance(allowed, set) else re.fullmatch(allowed, name), "layout", f"{path}/{name}")

    def check_expiry(self, signed):
        def time(field):
            return datetime.datetime.fromisoformat(signed[field].replace("Z", "+00:00"))

        expires = time("expires")
        for policy in self.root.get("indexAges", []) if signed["kind"] == "Index" else ():
            if matches(policy["match"], self.case["agent"]):
                expires = max(expires, time("issued") + datetime.timedelta(seconds=policy["maxAge"]))
        check(self.now < expires, "expired", f"{signed['kind']}: {signed['expires']}")

    def check_roots(self):
        newest, number, before = self.read("root.json"), 0, None
        while before is None or os.path.exists(os.path.join(self.folder, f"roots/{number + 1}.json")):
            number += 1
            data = self.read(f"roots/{number}.json")
            try:
                root = open_signed(data, "Root")
            except Newer:
                # Anybody can write that. It counts if the keys of the root before signed it.
                check_signed(parse(data, 256 << 10), before["roles"]["root"], "the root keys before")
                raise
            signed = root["signed"]
            check(signed["version"] == number, "roots", f"root {number} has another version")
            if before is None:
                self.fleet = content_digest(root)
                check(self.fleet == self.case["anchor"], "fleet", "another first root")
            else:
                check_signed(root, before["roles"]["root"], "the root keys before")
                check(signed["epoch"] - before["epoch"] in (0, 1), "epoch", f"root {number}")
                check(signed.get("fleet") == self.fleet, "fleet", f"root {number}")
            check_root(signed)
            check_signed(root, signed["roles"]["root"], "its own root keys")
            before, last = signed, root
        self.root = before
        check(content_digest(open_signed(newest, "Root")) == content_digest(last), "roots", f"root.json is not root {number}")
        self.check_expiry(self.root)

    def check_index(self):
        file = open_signed(self.read("index.json"), "Index", 1 << 20)
        check_signed(file, self.root["roles"]["publisher"], "the publishers")
        self.index = file["signed"]
        for field, value in (("fleet", self.fleet), ("branch", self.case["branch"]), ("epoch", self.root["epoch"])):
            check(self.index[field] == value, field, f"the index has {self.index[field]}")
        count = len(self.index["bins"])
        check(count in (1, 16, 256, 4096), "malformed", f"{count} bins")
        self.digits = (1, 16, 256, 4096).index(count)
        all_bins = {f"{n:0{self.digits}x}" for n in range(count)} if self.digits else {"all"}
        check(set(self.index["bins"]) == all_bins, "malformed", "other bins")
        self.folders = self.index["folders"]
        check(not {"approvals", "index", "roots"} & set(self.folders), "malformed", "folders that have no documents")
        sources = self.index.get("sources", [])
        check(len(sources) <= 256 and all(len(s.get("broken", [])) <= 24 for s in sources), "malformed", "its sources")
        top = {"README.md", "root.json", "index.json", "roots/", "index/", "approvals/"}
        self.check_layout("", top | {f"{folder}/" for folder in self.folders})
        self.check_layout("index", {f"{name}.json" for name in all_bins})
        self.check_layout("roots", r"[1-9][0-9]{0,15}\.json", 4096)
        for folder in [*self.folders, "approvals"] if self.digits else ():
            self.check_layout(folder, {f"{name}/" for name in all_bins})
        self.check_expiry(self.index)

    def bin_of(self, name):
        return hashlib.sha256(name.lower().encode()).hexdigest()[: self.digits] or "all"

    def path(self, folder, name):
        return f"{folder}/{self.bin_of(name)}/{name}" if self.digits else f"{folder}/{name}"

    def bin(self, name):
        """The bin of a name, checked, with the layout of its folders."""
        which = self.bin_of(name)
        data, entry = self.read(f"index/{which}.json"), self.index["bins"][which]
        digest = hashlib.sha256(data).hexdigest()
        check((len(data), digest) == (entry["length"], entry["sha256"]), "digest", f"the bin {which}")
        found = parse(data, 1 << 20)
        try:
            check_schema(found, "Bin")
        except Newer as error:
            # This does not concern one deployment alone.
            raise Refused(error.keyword, error) from error
        by_folder = [*found["documents"].values(), *found["tombstones"].values(), found["held"]]
        for listed in (name for names in by_folder for name in names):
            check(self.bin_of(listed) == which, "bins", f"{listed} is not of the bin {which}")
        for folder, names in found["tombstones"].items():
            both = set(names) & set(found["documents"].get(folder, {}))
            check(not both, "tombstone", f"{both} in {folder} are listed and withdrawn")
        inside = f"/{which}" if self.digits else ""
        for folder in self.folders:
            self.check_layout(folder + inside, {f"{name}.json" for name in found["documents"].get(folder, {})})
        self.check_layout("approvals" + inside, NAME.pattern + "/")
        return found

    def document(self, folder, name):
        """A document that is listed and signed; None if it was withdrawn."""
        found = self.bin(name)
        listed = found["documents"].get(folder, {}).get(name)
        if listed is None:
            check(name in found["tombstones"].get(folder, {}), "missing", f"{folder}/{name} is not listed")
            return None
        data = self.read(self.path(folder, name) + ".json")
        digest = hashlib.sha256(data).hexdigest()
        check((len(data), digest) == (listed["length"], listed["sha256"]), "digest", f"{folder}/{name}")
        file = open_signed(data, FOLDERS[folder])
        check_signed(file, self.root["roles"]["publisher"], "the publishers")
        signed = file["signed"]
        check(signed["fleet"] == self.fleet, "fleet", f"{folder}/{name}")
        found = (signed["name"], signed["revision"])
        check(found == (name, listed["revision"]), "document", f"{folder}/{name} is {found}")
        return file

    def approvals_needed(self, names):
        role, needed = self.root["roles"]["approver"], 0
        for policy in self.root["approvals"]:
            if any(matches(policy["match"], name) for name in names):
                needed = max(needed, policy["approvals"], role["threshold"])
        return needed

    def approvals(self, deployment):
        """The approvers of this very revision. A file that is no such approval counts nothing."""
        signed, keys = deployment["signed"], set()
        folder = self.path("approvals", signed["name"])
        self.check_layout(folder, NAME.pattern + r"\.json", 64)
        wanted = {"name": signed["name"], "revision": signed["revision"], "contentDigest": content_digest(deployment)}
        wanted |= {"epoch": self.root["epoch"], "fleet": self.fleet}
        for key in self.root["roles"]["approver"]["keys"]:
            try:
                file = open_signed(self.read(f"{folder}/{name_of(key)}.json"), "Approval", 16 << 10)
                if len(signatures_of(file)) == 1 and all(file["signed"][field] == value for field, value in wanted.items()):
                    keys |= signers(file, {"keys": [key]})
            except Refused:
                continue
        return keys

    def deployment(self, name):
        """A deployment of the agent and its unit; None where it is withdrawn, is for a newer reader, for another
        machine or for no unit."""
        try:
            file = self.document("deployments", name)
            if file is None:
                return None
            specification = file["signed"]["specification"]
            # A unit that is not listed harms no deployment for another unit.
            if specification["unit"] not in self.bin(specification["unit"])["documents"].get("units", {}):
                return None
            unit = self.document("units", specification["unit"])
        except Newer:
            return None
        if unit["signed"]["specification"]["arch"] != self.case["system"]:
            return None
        check(specification["unit"] not in self.units, "units", f"two deployments for {specification['unit']}")
        self.units.add(specification["unit"])
        needed = self.approvals_needed([name, specification["unit"], self.case["agent"]])
        waiting = needed > 0 and len(self.approvals(file)) < needed
        narid = specification["template"]["narId"]
        return {"revision": file["signed"]["revision"], "narId": narid, "waiting": waiting}

    def deployments(self):
        self.check_roots()
        self.check_index()
        agent = self.document("agents", self.case["agent"])
        self.units = set()
        names = agent["signed"]["specification"]["deployments"] if agent else []
        found = {name: self.deployment(name) for name in names}
        return {name: deployment for name, deployment in found.items() if deployment}


def read(folder):
    with open(os.path.join(folder, "case.json"), "rb") as file:
        case = json.load(file)
    try:
        return {"deployments": Branch(os.path.join(folder, "branch"), case).deployments()}
    except Refused as error:
        print(f"{folder}: {error}", file=sys.stderr)
        return {"error": error.keyword}


for argument in sys.argv[1:]:
    print(json.dumps(read(argument), sort_keys=True))
