//! Trusted roots: the first one, and each one that may follow (The Update Framework, section 5.3).

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use super::signed::Envelope;
use super::{Authority, AuthorityError, Signed, SignedError};
use crate::model::{
    BranchFile as _, Epoch, FleetId, Invalid, KeyId, Name, Role, RoleKey, Root, RootVersion, Sha256Digest, Timestamp,
};

/// A root that is trusted, because an operator gave it or because the trusted root before it signed it.
#[derive(Debug, Clone)]
pub struct TrustedRoot {
    fleet: FleetId,
    root: Root,
    content_digest: Sha256Digest,
    file: Vec<u8>,
    signers: Authority,
    publisher: Authority,
    approver: Option<Authority>,
}

/// The reason why a root is not trusted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RootError {
    /// It does not parse as a root, or too few of the required keys signed it.
    #[error("{by}")]
    Signed {
        /// The keys that have to sign it.
        by: RequiredSigners,
        /// The reason.
        source: SignedError,
    },
    /// The keys of a role could never reach its threshold, or one of them is unusable.
    #[error("its role `{role}` is not valid")]
    Role {
        /// The role.
        role: &'static str,
        /// The reason.
        source: AuthorityError,
    },
    /// A policy asks for more approvals than there are approvers.
    #[error("it asks for {asked} approvals of `{pattern}`, and has {approvers} approvers")]
    TooFewApprovers {
        /// The policy's pattern.
        pattern: String,
        /// The number of approvals that it asks for.
        asked: usize,
        /// The number of approvers with different keys.
        approvers: usize,
    },
    /// The name of an approver's key is not a valid file name, or another approver has the same name.
    #[error(
        "the name of the approver `{name}` cannot be used, since an approval is in a file of the approver's name: {why}"
    )]
    ApproverName {
        /// The key's name.
        name: KeyId,
        /// The rule that the name breaks.
        why: String,
    },
    /// It is not the expected version.
    #[error("it is version {found}, where version {expected} has to follow")]
    NotNext {
        /// The version that has to follow.
        expected: RootVersion,
        /// Its version.
        found: RootVersion,
    },
    /// No version can follow this one.
    #[error("version {0} is the largest that a root can have")]
    Last(RootVersion),
    /// Its epoch is neither that of the root before it nor the next.
    #[error("its epoch is {found}, and the epoch before it is {before}; an epoch stays the same or goes up by one")]
    Epoch {
        /// The epoch of the root before it.
        before: Epoch,
        /// Its own.
        found: Epoch,
    },
    /// It belongs to another fleet.
    #[error("it belongs to the fleet {found}, not to {expected}")]
    OtherFleet {
        /// The expected fleet.
        expected: FleetId,
        /// The fleet that it belongs to.
        found: FleetId,
    },
    /// It is a first root that names a fleet, or a later root that names none.
    #[error("it is version {0}: the first root must not name a fleet, and every later root has to")]
    Fleet(RootVersion),
}

/// The keys that have to sign a root.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RequiredSigners {
    /// Its own root keys.
    Itself,
    /// The keys of the root before it.
    PreviousRoot,
    /// The keys of the trusted root of the same version.
    TrustedRoot,
}

impl std::fmt::Display for RequiredSigners {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Itself => "checked with its own root keys",
            Self::PreviousRoot => "checked with the keys of the root before it",
            Self::TrustedRoot => "checked with the keys of the root of that version that is trusted",
        })
    }
}

impl TrustedRoot {
    /// Trusts a root that an operator gave, of any version, if enough of its own keys signed it.
    pub fn given(file: &[u8]) -> Result<Self, RootError> {
        let signed = parse(file)?;
        Self::build(file, &signed)
    }

    /// Trusts a first root that has the digest `fleet`.
    pub fn first(file: &[u8], fleet: FleetId) -> Result<Self, RootError> {
        let signed = parse(file)?;
        let version = signed.unverified().version;
        if version != RootVersion::FIRST {
            return Err(RootError::NotNext { expected: RootVersion::FIRST, found: version });
        }
        let root = Self::build(file, &signed)?;
        root.check_fleet(fleet)
    }

    /// Trusts the root after this one, if it is the very next version, and enough keys of this root and of its own signed it.
    pub fn next(&self, file: &[u8]) -> Result<Self, RootError> {
        let signed = self.parse_next(file)?;
        let next = signed.unverified();
        let expected = self.root.version.next().ok_or(RootError::Last(self.root.version))?;
        if next.version != expected {
            return Err(RootError::NotNext { expected, found: next.version });
        }
        let check = signed.check(&self.signers);
        check.map_err(|source| RootError::Signed { by: RequiredSigners::PreviousRoot, source })?;
        if next.epoch != self.root.epoch && Some(next.epoch) != self.root.epoch.next() {
            return Err(RootError::Epoch { before: self.root.epoch, found: next.epoch });
        }
        Self::build(file, &signed)?.check_fleet(self.fleet)
    }

    /// Parses the next root. That a newer Clavel is needed for it counts only where the keys of this root have signed that.
    fn parse_next(&self, file: &[u8]) -> Result<Signed<Root>, RootError> {
        parse(file).map_err(|error| match error {
            RootError::Signed { source, .. } if source.is_of_a_newer_clavel() => {
                let signed =
                    Envelope::parse::<Root>(file).and_then(|(envelope, _)| envelope.check::<Root>(&self.signers));
                RootError::Signed { by: RequiredSigners::PreviousRoot, source: signed.err().unwrap_or(source) }
            }
            error => error,
        })
    }

    /// Trusts another root of the same version, if enough keys of this root and of its own signed it.
    pub fn same_version(&self, file: &[u8]) -> Result<Self, RootError> {
        let signed = parse(file)?;
        let (expected, found) = (self.root.version, signed.unverified().version);
        if found != expected {
            return Err(RootError::NotNext { expected, found });
        }
        signed.check(&self.signers).map_err(|source| RootError::Signed { by: RequiredSigners::TrustedRoot, source })?;
        Self::build(file, &signed)?.check_fleet(self.fleet)
    }

    fn build(file: &[u8], signed: &Signed<Root>) -> Result<Self, RootError> {
        let root = signed.unverified().clone();
        let role = |role: &'static str| move |source| RootError::Role { role, source };
        let signers = Authority::of(&root.roles.root).map_err(role("root"))?;
        let publisher = Authority::of(&root.roles.publisher).map_err(role("publisher"))?;
        let approver = &root.roles.approver;
        let no_approvals = approver.keys.is_empty() && root.approvals.is_empty();
        let approver = if no_approvals { None } else { Some(Authority::of(approver).map_err(role("approver"))?) };
        let approvers = approver.as_ref().map_or(0, |approver| approver.key_ids().count());
        if let Some(policy) = root.approvals.iter().find(|policy| policy.approvals.get() > approvers) {
            let (pattern, asked) = (policy.pattern.to_string(), policy.approvals.get());
            return Err(RootError::TooFewApprovers { pattern, asked, approvers });
        }
        check_names(&root.roles.approver)?;
        if root.fleet.is_none() != (root.version == RootVersion::FIRST) {
            return Err(RootError::Fleet(root.version));
        }
        let fleet = fleet_of(signed);
        signed.check(&signers).map_err(|source| RootError::Signed { by: RequiredSigners::Itself, source })?;
        Ok(Self {
            fleet,
            root,
            content_digest: signed.content_digest(),
            file: file.to_vec(),
            signers,
            publisher,
            approver,
        })
    }

    fn check_fleet(self, fleet: FleetId) -> Result<Self, RootError> {
        if self.fleet == fleet { Ok(self) } else { Err(RootError::OtherFleet { expected: fleet, found: self.fleet }) }
    }

    /// The fleet that it belongs to.
    pub fn fleet(&self) -> FleetId {
        self.fleet
    }

    /// Its content.
    pub fn root(&self) -> &Root {
        &self.root
    }

    /// The bytes of its file.
    pub fn file(&self) -> &[u8] {
        &self.file
    }

    /// The digest of its content, which its signatures are no part of.
    pub fn content_digest(&self) -> Sha256Digest {
        self.content_digest
    }

    /// The keys that sign the index and the documents.
    pub fn publisher(&self) -> &Authority {
        &self.publisher
    }

    /// The keys that approve deployments, where there are any.
    pub fn approver(&self) -> Option<&Authority> {
        self.approver.as_ref()
    }

    /// Whether it is expired at `now`.
    pub fn is_expired(&self, now: Timestamp) -> bool {
        now >= self.root.expires
    }
}

/// Checks that the names of approvers can be file names. Some file systems ignore case, so two names must differ in more
/// than case.
fn check_names(approver: &Role) -> Result<(), RootError> {
    let mut taken = BTreeSet::new();
    for id in approver.keys.iter().map(RoleKey::id) {
        let bad = |why: String| RootError::ApproverName { name: id.clone(), why };
        let name: Name = id.as_str().parse().map_err(|error: Invalid| bad(error.why))?;
        if !taken.insert(name.folded()) {
            return Err(bad("another approver has the same name, without regard to case".to_owned()));
        }
    }
    Ok(())
}

/// The fleet of a root: the one that it names, or for a first root the digest of its content.
pub fn fleet_of(root: &Signed<Root>) -> FleetId {
    root.unverified().fleet.unwrap_or_else(|| FleetId::of(root.content_digest()))
}

fn parse(file: &[u8]) -> Result<Signed<Root>, RootError> {
    Signed::parse(file).map_err(|source| RootError::Signed { by: RequiredSigners::Itself, source })
}

/// The trust that a machine starts with, before it has fetched anything.
#[derive(Debug, Clone)]
pub enum Anchor {
    /// A root.
    Root(Box<TrustedRoot>),
    /// The digest of the first root. The branch has to contain that root.
    Digest(FleetId),
}

/// The location of an [`Anchor`]: a file with a root, or the digest of the first root itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AnchorLocation {
    /// A file.
    File(PathBuf),
    /// The digest itself.
    Digest(FleetId),
}

/// The reason why an anchor cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum AnchorError {
    /// The file cannot be read.
    #[error("cannot read the root {}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// The error of the system.
        source: std::io::Error,
    },
    /// The file holds no valid root.
    #[error("the root {} cannot be trusted", path.display())]
    Root {
        /// The file.
        path: PathBuf,
        /// The reason.
        source: RootError,
    },
}

impl std::str::FromStr for AnchorLocation {
    type Err = std::convert::Infallible;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        // 64 hexadecimal digits are always a digest: nobody gives a root file such a name by accident.
        Ok(text.parse().map_or_else(|_| Self::File(text.into()), Self::Digest))
    }
}

impl AnchorLocation {
    /// The same location, with a relative path resolved against `directory`.
    #[must_use]
    pub fn below(self, directory: &Path) -> Self {
        match self {
            Self::File(path) => Self::File(directory.join(path)),
            digest @ Self::Digest(_) => digest,
        }
    }
}

impl Anchor {
    /// Reads the anchor, and verifies a root that is in a file.
    pub fn read(location: &AnchorLocation) -> Result<Self, AnchorError> {
        match location {
            AnchorLocation::Digest(fleet) => Ok(Self::Digest(*fleet)),
            AnchorLocation::File(path) => {
                let io = |source| AnchorError::Io { path: path.clone(), source };
                let file = read_at_most(path, Root::MAX_BYTES + 1).map_err(io)?;
                let root = TrustedRoot::given(&file);
                let root = root.map_err(|source| AnchorError::Root { path: path.clone(), source })?;
                Ok(Self::Root(Box::new(root)))
            }
        }
    }

    /// The fleet that it stands for.
    pub fn fleet(&self) -> FleetId {
        match self {
            Self::Root(root) => root.fleet(),
            Self::Digest(fleet) => *fleet,
        }
    }
}

fn read_at_most(path: &Path, limit: u64) -> std::io::Result<Vec<u8>> {
    use std::io::Read as _;
    let mut bytes = Vec::new();
    std::fs::File::open(path)?.take(limit).read_to_end(&mut bytes)?;
    Ok(bytes)
}

#[cfg(test)]
#[path = "root_tests.rs"]
mod tests;
