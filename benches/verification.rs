//! Compares the time to verify a branch with the time of the bare cryptography, as ratios within one run: `make bench`.

#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a benchmark that cannot go on says so by panicking")]

use std::collections::BTreeMap;
use std::hint::black_box;
use std::io::Write as _;
use std::path::Path;
use std::time::{Duration, Instant, SystemTime};

use clavel::branch::{Branch, Layout, RootChain};
use clavel::git::{Authorship, Change, CommitId, Files, Identity, NewCommit, Repository};
use clavel::model::{
    AgentSpecification, Bin, BinCount, BinDigests, BinId, BranchName, DeploymentSpecification, Document,
    DocumentMetadata, DocumentPath, Draft, Epoch, FileDigest, Folder, FolderName, Index, IndexEntry, IndexVersion,
    Kind, List, Metadata, Name, NarTemplateSpecification, Payload, Provenance, Revision, Schema, Specification, System,
    TemplateMetadata, Timestamp, UnitSpecification, UnitType, json,
};
use clavel::trust::{Amendment, Anchor, RoleName, SecretKey, Signed, TrustedRoot, digest};
use ed25519_dalek::{Signature, VerifyingKey};

#[path = "../tests/support/command.rs"]
#[expect(dead_code, reason = "the tests use more of it")]
mod command;

#[expect(dead_code, reason = "others use more of it")]
mod measure;

use command::program;
use measure::processes::peak_memory;
use measure::{format_time, median, timed};

/// The numbers of deployments on the branches, each with its unit and its agent.
const FLEETS: [usize; 3] = [100, 10_000, 100_000];
const ROUNDS: usize = 7;
/// The variable that makes this program the child process whose memory is measured.
const ONE_PASS: &str = "CLAVEL_BENCH_ONE_PASS";

/// The files of a branch, and the bytes that its signatures are over.
struct Fleet {
    root: TrustedRoot,
    /// How many deployments there are, each with its unit and its agent.
    count: usize,
    files: BTreeMap<String, Vec<u8>>,
    signed: Vec<(Vec<u8>, Signature)>,
    key: SecretKey,
}

fn main() {
    if let Ok(folder) = std::env::var(ONE_PASS) {
        one_pass(Path::new(&folder));
        return;
    }
    println(format_args!("{:54} {:>9} {:>9}   beside", "", "ours", "bare"));
    for count in FLEETS {
        let fleet = Fleet::new(count);
        measure_everything(&fleet);
        let folder = tempfile::tempdir().unwrap();
        fleet.commit(folder.path());
        measure_one_agent(folder.path(), count);
    }
}

fn println(line: std::fmt::Arguments<'_>) {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{line}").unwrap();
}

fn branch() -> BranchName {
    "deployments".parse().unwrap()
}

fn name(at: usize) -> Name {
    format!("host-{at:05}").parse().unwrap()
}

impl Fleet {
    fn new(count: usize) -> Self {
        let key = SecretKey::generate("claveld-1".parse().unwrap()).unwrap();
        let add = vec![(RoleName::Root, key.public().into()), (RoleName::Publisher, key.public().into())];
        let amendment = Amendment { add, ..Amendment::default() };
        let year = Duration::from_hours(24 * 365);
        let root = amendment.first(Timestamp::from(SystemTime::now()).plus(year)).unwrap();
        let root = TrustedRoot::given(&Signed::sign(root, &key).render()).unwrap();
        let mut fleet = Self { root, count, files: BTreeMap::new(), signed: Vec::new(), key };
        let bins = BinCount::ONE.for_entries(3 * count);
        let mut listed: BTreeMap<BinId, Bin> = bins.bins().map(|bin| (bin, Bin::empty())).collect();
        let hosts: Vec<Name> = (0..count).map(name).collect();
        fleet.add(&mut listed, &hosts, |_, host| AgentSpecification { deployments: List::one(host.clone()) });
        fleet.add(&mut listed, &hosts, |at, host| deployment(host, at));
        let arch: System = "x86_64-linux".parse().unwrap();
        fleet.add(&mut listed, &hosts, |_, _| UnitSpecification { arch: arch.clone(), unit_type: UnitType::Nixos });
        let files: BTreeMap<BinId, Vec<u8>> =
            listed.iter().map(|(bin, content)| (*bin, json::render(content))).collect();
        let now = Timestamp::from(SystemTime::now());
        let index = Index {
            bins: BinDigests::of(bins, |bin| FileDigest::of(&files[&bin])),
            branch: branch(),
            epoch: Epoch::FIRST,
            expires: now.plus(year),
            fleet: fleet.root.fleet(),
            folders: Folder::ALL.map(FolderName::from).to_vec().try_into().unwrap(),
            issued: now,
            kind: Kind::THIS,
            previous: None,
            schema: Schema::V1,
            sources: List::default(),
            version: IndexVersion::FIRST,
        };
        fleet.files.extend(files.into_iter().map(|(bin, file)| (Layout::bin(bin), file)));
        let file = fleet.sign(index);
        fleet.files.insert(Layout::INDEX.to_owned(), file);
        fleet
    }

    /// Adds a document for each host, and lists it in its bin.
    fn add<S: Specification>(
        &mut self,
        listed: &mut BTreeMap<BinId, Bin>,
        hosts: &[Name],
        specification: impl Fn(usize, &Name) -> S,
    ) {
        let bins = *listed.keys().next().unwrap();
        let mut entries: BTreeMap<BinId, Vec<(Name, IndexEntry)>> = BTreeMap::new();
        for (at, host) in hosts.iter().enumerate() {
            let document = self.document(host, specification(at, host));
            let file = self.sign(document);
            let entry = IndexEntry { length: file.len() as u64, revision: Revision::FIRST, sha256: digest(&file) };
            entries.entry(bins.count().bin_of(host)).or_default().push((host.clone(), entry));
            let path = Layout::of(bins.count()).document(&DocumentPath::new(S::FOLDER, host.clone()));
            self.files.insert(path, file);
        }
        for (bin, entries) in entries {
            listed.get_mut(&bin).unwrap().documents.insert(S::FOLDER.into(), entries.try_into().unwrap()).unwrap();
        }
    }

    fn document<S: Specification>(&self, host: &Name, specification: S) -> Document<S> {
        let metadata = Provenance {
            attribute: format!("nixosConfigurations.{host}").parse().unwrap(),
            drv_path: Some("/nix/store/35ir4klckx5pcsb9drk2xjh46sppdcry-nixos-system-host.drv".parse().unwrap()),
            evaluated_at: "2026-01-01T00:00:00Z".parse().unwrap(),
            source: "git+https://git.example.org/fleet?ref=main".parse().unwrap(),
            source_hash: "sha256-AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=".parse().unwrap(),
            source_revision: Some("a".repeat(40).parse().unwrap()),
        };
        let metadata = DocumentMetadata::with_provenance(Metadata::default(), &metadata).unwrap();
        Draft::new(host.clone(), metadata, specification).at(Revision::FIRST, self.root.fleet())
    }

    /// The file of `payload`. The bytes that its signature is over are kept for the bare verification.
    fn sign<P: Payload>(&mut self, payload: P) -> Vec<u8> {
        let body = json::compact(&payload);
        let kind = P::PAYLOAD_TYPE;
        let mut message = format!("DSSEv1 {} {kind} {} ", kind.len(), body.len()).into_bytes();
        message.extend_from_slice(&body);
        let file = Signed::sign(payload, &self.key).render();
        let written: serde_json::Value = serde_json::from_slice(&file).unwrap();
        let signature = written["signatures"][0]["sig"].as_str().unwrap();
        let bytes = base64::Engine::decode(&base64::engine::general_purpose::STANDARD, signature).unwrap();
        self.signed.push((message, Signature::from_slice(&bytes).unwrap()));
        file
    }

    /// Commits all files to a branch of a bare repository in `folder`, and writes the root beside it.
    fn commit(&self, folder: &Path) {
        std::fs::write(folder.join("root.json"), self.root.file()).unwrap();
        let repository = Repository::open_or_create_bare(&folder.join("fleet.git")).unwrap();
        let put = |path: &str, bytes: &[u8]| Change::Put { path: path.to_owned(), bytes: bytes.to_vec() };
        let mut changes: Vec<Change> = self.files.iter().map(|(path, bytes)| put(path, bytes)).collect();
        changes.push(put(Layout::NEWEST_ROOT, self.root.file()));
        changes.push(put(&Layout::root(self.root.root().version), self.root.file()));
        let by = Authorship::of(Identity::of_program("claveld", "claveld"));
        let at = SystemTime::now();
        let branch = branch();
        let new = NewCommit { branch: &branch, expected: None, changes: &changes, message: "A fleet", by: &by, at };
        repository.commit(&new).unwrap();
        // A fetch leaves one pack.
        let repack = program("git").arg("-C").arg(folder.join("fleet.git")).args(["repack", "-adq"]).status();
        assert!(repack.unwrap().success());
    }
}

fn deployment(host: &Name, at: usize) -> DeploymentSpecification {
    let hash: String =
        (0..32).map(|place| char::from(b'0' + u8::try_from((at >> (place % 13)) % 10).unwrap())).collect();
    let cache = "https://cache.example.org".parse().unwrap();
    let key = "cache.example.org-1:6NCHdD59X431o0gWypbMrAURkbJ16ZPMQFGspcDShjY=".parse().unwrap();
    let template = NarTemplateSpecification {
        metadata: TemplateMetadata::default(),
        nar_id: format!("/nix/store/{hash}-nixos-system-{host}-24.05").parse().unwrap(),
        substituters: List::one(cache),
        substituters_public_keys: List::one(key),
    };
    DeploymentSpecification::new(host.clone(), template)
}

/// Compares the verification of the index and all deployments with the bare ed25519 verifications and SHA-256 digests.
fn measure_everything(fleet: &Fleet) {
    let key = VerifyingKey::from_bytes(fleet.key.public().bytes()).unwrap();
    let deployments: Vec<usize> = (fleet.count..2 * fleet.count).chain([3 * fleet.count]).collect();
    let hashed: Vec<&Vec<u8>> = fleet
        .files
        .iter()
        .filter(|(path, _)| path.starts_with("deployments/") || path.starts_with("index"))
        .map(|(_, file)| file)
        .collect();
    let (mut ours, mut bare) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        bare.push(timed(|| {
            for at in &deployments {
                let (message, signature) = &fleet.signed[*at];
                key.verify_strict(message, signature).unwrap();
            }
            for file in &hashed {
                black_box(digest(file));
            }
        }));
        ours.push(timed(|| {
            let branch = branch();
            let branch = Branch::new(&fleet.files, &fleet.root, &branch);
            let mut index = branch.whole_index().unwrap();
            for name in index.names(Folder::Deployments) {
                black_box(branch.document::<DeploymentSpecification>(&mut index, &name).unwrap());
            }
        }));
    }
    let (ours, bare) = (median(ours), median(bare));
    let ratio = ours.as_secs_f64() / bare.as_secs_f64();
    println(format_args!(
        "{:54} {:>9} {:>9}   {ratio:.2} times (goal: at most 1.2)",
        format!("the index and {} deployments", fleet.count),
        format_time(ours),
        format_time(bare)
    ));
}

/// Measures the verification that one agent does on a branch with all deployments, from a fetched repository.
fn measure_one_agent(folder: &Path, count: usize) {
    let mut times: Vec<Duration> = Vec::new();
    let mut memory = 0;
    for _ in 0..ROUNDS {
        let run = program(std::env::current_exe().unwrap()).env(ONE_PASS, folder).output().unwrap();
        assert!(run.status.success(), "{}", String::from_utf8_lossy(&run.stderr));
        let said = String::from_utf8(run.stdout).unwrap();
        let (time, peak) = said.trim().split_once(' ').unwrap();
        times.push(Duration::from_micros(time.parse().unwrap()));
        memory = memory.max(peak.parse::<u64>().unwrap());
    }
    let what = format!("one agent, {count} deployments on the branch");
    println(format_args!("{what:54} {:>9} {:>9}   (goal: under 20 ms)", format_time(median(times)), ""));
    println(format_args!(
        "{:54} {:>5} KiB {:>9}   (goal: under 16 MiB)",
        "  memory, all that the process ever held", memory, ""
    ));
}

/// Verifies one agent's documents. Prints the time in microseconds, and the peak memory in KiB.
fn one_pass(folder: &Path) {
    let repository = Repository::open(&folder.join("fleet.git")).unwrap();
    let root = TrustedRoot::given(&std::fs::read(folder.join("root.json")).unwrap()).unwrap();
    let start = Instant::now();
    let branch_name = branch();
    let tip: CommitId = repository.tip(&branch_name).unwrap().unwrap();
    // These are the steps of a pass, in the same order and number.
    let snapshot = repository.snapshot(tip).unwrap();
    let newest = RootChain::newest_from(&snapshot, &Anchor::Root(Box::new(root))).unwrap();
    verify(&snapshot, newest, &branch_name);
    let time = start.elapsed();
    println(format_args!("{} {}", time.as_micros(), peak_memory("self").unwrap()));
}

fn verify<F: Files>(files: &F, root: TrustedRoot, branch_name: &BranchName) {
    let roots = RootChain::from_anchor(files, &Anchor::Root(Box::new(root))).unwrap();
    let branch = Branch::new(files, &roots.newest, branch_name);
    let mut index = branch.index().unwrap();
    let host = name(50);
    let agent = branch.document::<AgentSpecification>(&mut index, &host).unwrap();
    let deployment =
        branch.document::<DeploymentSpecification>(&mut index, &agent.specification.deployments[0]).unwrap();
    black_box(branch.document::<UnitSpecification>(&mut index, &deployment.specification.unit).unwrap());
}
