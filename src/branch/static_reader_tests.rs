use super::super::fixture::{Listing, index, index_files};
use super::super::static_tip::StaticHead;
use super::*;
use crate::model::{
    Agent, BinCount, DocumentMetadata, IndexEntry, IndexVersion, Kind, List, Revision, Schema, Sha256Digest, Timestamp,
};
use crate::trust::fixture::Fleet;

/// A folder in memory, which notes what is asked of it.
#[derive(Default)]
struct Memory {
    objects: BTreeMap<Sha256Digest, Vec<u8>>,
    known: BTreeMap<String, Vec<u8>>,
    kept: BTreeMap<String, Vec<u8>>,
    asked: usize,
}

impl Memory {
    fn add(&mut self, bytes: Vec<u8>) -> FileDigest {
        let digest = FileDigest::of(&bytes);
        self.objects.insert(digest.sha256, bytes);
        digest
    }

    /// Reads, and returns how many objects were asked for.
    fn read(&mut self, tip: &[u8], part: &BranchPart) -> usize {
        self.asked = 0;
        read_static(tip, part, self).unwrap();
        self.known = std::mem::take(&mut self.kept);
        self.asked
    }
}

impl StaticTransfer for Memory {
    fn file(&mut self, path: &str, digest: &FileDigest) -> Result<Vec<u8>, StaticError> {
        let known = self.known(path, u64::MAX).filter(|bytes| FileDigest::of(bytes) == *digest);
        let bytes = known.map_or_else(|| self.object(digest), Ok)?;
        self.keep(path, &bytes)?;
        Ok(bytes)
    }

    fn object(&mut self, digest: &FileDigest) -> Result<Vec<u8>, StaticError> {
        self.asked += 1;
        let missing = || StaticError::NotThere { file: digest.sha256.to_string() };
        self.objects.get(&digest.sha256).cloned().ok_or_else(missing)
    }

    fn known(&self, path: &str, _: u64) -> Option<Vec<u8>> {
        self.known.get(path).cloned()
    }

    fn keep(&mut self, path: &str, bytes: &[u8]) -> Result<(), StaticError> {
        self.kept.insert(path.to_owned(), bytes.to_owned());
        Ok(())
    }
}

/// Puts an agent and its deployment, whose file no reader can parse, into the folder, with an approval. Returns the tip.
fn folder(memory: &mut Memory, fleet: &Fleet) -> Vec<u8> {
    let mut listing = Listing::empty(BinCount::every().nth(1).unwrap());
    let [agent, deployment, other]: [Name; 3] = ["web-1", "db-1", "mail-1"].map(|name| name.parse().unwrap());
    let specification = AgentSpecification { deployments: List::one(deployment.clone()) };
    let document = Agent {
        fleet: fleet.id(),
        kind: Kind::THIS,
        metadata: DocumentMetadata::default(),
        name: agent.clone(),
        revision: Revision::FIRST,
        schema: Schema::V1,
        specification,
    };
    let files = [
        (DocumentPath::new(Folder::Agents, agent), Signed::sign(document, &fleet.key).render()),
        (DocumentPath::new(Folder::Deployments, deployment.clone()), b"a deployment".to_vec()),
        (DocumentPath::new(Folder::Deployments, other), b"another one".to_vec()),
    ];
    for (path, bytes) in files {
        let FileDigest { length, sha256 } = memory.add(bytes);
        listing.documents.insert(path, IndexEntry { length, revision: Revision::FIRST, sha256 });
    }
    let now = Timestamp::from_seconds(1_000_000).unwrap();
    let files = index_files(fleet, &listing, index(fleet, &listing, now, IndexVersion::FIRST));
    for (_, file) in files.iter().filter(|(path, _)| *path != Layout::INDEX) {
        memory.add(file.clone());
    }
    let roots: StaticRoots = List::one(memory.add(fleet.root.file().to_owned()));
    let roots = memory.add(json::render(&roots));
    let approval = vec![("alice".parse().unwrap(), memory.add(b"an approval".to_vec()))];
    let list: StaticApprovals = vec![(deployment.clone(), approval.try_into().unwrap())].try_into().unwrap();
    let list = memory.add(json::render(&list));
    let approvals = vec![(listing.count.bin_of(&deployment), list)].try_into().unwrap();
    StaticTip { head: StaticHead::new(roots, approvals), index: &files[Layout::INDEX] }.render()
}

#[test]
fn an_agent_asks_for_its_own_files_once_and_a_reader_of_all_for_each() {
    let (mut memory, fleet) = (Memory::default(), Fleet::new());
    let tip = folder(&mut memory, &fleet);
    let part = BranchPart::OfAgent { agent: "web-1".parse().unwrap(), deployments: None };
    // The list of roots and the root, two bins, and the two documents. No deployment was parsed, so that its approval is not known to be needed.
    assert_eq!(memory.read(&tip, &part), 6);
    let agent = memory.known["agents/c/web-1.json"].clone();
    assert!(memory.known.contains_key("root.json") && memory.known.keys().all(|path| !path.contains("mail-1")));
    // Everything is known then.
    assert_eq!(memory.read(&tip, &part), 0);
    // What was altered here is read again.
    memory.known.insert("agents/c/web-1.json".to_owned(), b"altered".to_vec());
    assert_eq!((memory.read(&tip, &part), &memory.known["agents/c/web-1.json"]), (1, &agent));
    // An agent that wants nothing reads its own document and no other.
    let part = BranchPart::OfAgent { agent: "web-1".parse().unwrap(), deployments: Some(Vec::new()) };
    memory.read(&tip, &part);
    assert!(memory.known.keys().all(|path| !path.starts_with("deployments")));
    memory.known.clear();
    // The roots as above, 16 bins of which 13 or more are the same empty file, three documents, the list and the approval.
    assert_eq!(memory.read(&tip, &BranchPart::Whole), 2 + 16 + 3 + 2);
    assert!(memory.known.keys().any(|path| path.starts_with("approvals/") && path.ends_with("/db-1/alice.json")));
}

#[test]
fn a_cut_tip_and_a_missing_object_are_errors() {
    let (mut memory, fleet) = (Memory::default(), Fleet::new());
    let tip = folder(&mut memory, &fleet);
    let read = |memory: &mut Memory, tip: &[u8]| read_static(tip, &BranchPart::Whole, memory).unwrap_err();
    for length in [0, 10, tip.len() / 2, tip.len() - 1] {
        assert!(matches!(read(&mut memory, &tip[..length]), StaticError::Content { .. }), "{length}");
    }
    memory.objects.retain(|_, bytes| bytes != b"another one");
    assert!(matches!(read(&mut memory, &tip), StaticError::NotThere { .. }));
}
