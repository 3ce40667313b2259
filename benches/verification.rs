//! Compares the time to verify a branch with the time of the bare cryptography, as ratios within one run: `make bench`.

#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a benchmark that cannot go on says so by panicking")]

use std::collections::BTreeMap;
use std::hint::black_box;
use std::io::Write as _;
use std::path::Path;
use std::time::{Duration, Instant, SystemTime};

use clavel::branch::{Branch, Layout, RootChain};
use clavel::git::{Change, CommitId, Files, Identity, NewCommit, Repository};
use clavel::model::{
    AgentSpecification, BranchName, DeploymentSpecification, DocumentPath, Draft, Epoch, Folder, Index, IndexEntry,
    IndexVersion, Kind, List, Map, Metadata, Name, NarTemplateSpecification, Payload, Provenance, Revision, Schema,
    Specification, Timestamp, UnitSpecification, UnitType, json,
};
use clavel::trust::{Amendment, Anchor, RoleName, SecretKey, Signed, TrustedRoot, digest};
use ed25519_dalek::{Signature, VerifyingKey};

#[path = "../tests/support/command.rs"]
#[expect(dead_code, reason = "the tests use more of it")]
mod command;

mod measure;

use command::program;
use measure::{format_time, median, timed};

/// The number of deployments on the branch, each with its unit and its agent.
const DEPLOYMENTS: usize = 10_000;
const ROUNDS: usize = 7;
/// The variable that makes this program the child process whose memory is measured.
const ONE_PASS: &str = "CLAVEL_BENCH_ONE_PASS";

/// The files of a branch, and the bytes that its signatures are over.
struct Fleet {
    root: TrustedRoot,
    files: BTreeMap<String, Vec<u8>>,
    signed: Vec<(Vec<u8>, Signature)>,
    key: SecretKey,
}

fn main() {
    if let Ok(folder) = std::env::var(ONE_PASS) {
        one_pass(Path::new(&folder));
        return;
    }
    let fleet = Fleet::new();
    println(format_args!("{:54} {:>9} {:>9}   beside", "", "ours", "bare"));
    measure_everything(&fleet);
    let folder = tempfile::tempdir().unwrap();
    fleet.commit(folder.path());
    measure_one_agent(folder.path());
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
    fn new() -> Self {
        let key = SecretKey::generate("claveld-1".parse().unwrap()).unwrap();
        let add = vec![(RoleName::Root, key.public().into()), (RoleName::Publisher, key.public().into())];
        let amendment = Amendment { add, ..Amendment::default() };
        let year = Duration::from_hours(24 * 365);
        let root = amendment.first(Timestamp::from(SystemTime::now()).plus(year)).unwrap();
        let root = TrustedRoot::given(&Signed::sign(root, &key).render()).unwrap();
        let mut fleet = Self { root, files: BTreeMap::new(), signed: Vec::new(), key };
        let mut documents = Map::default();
        let hosts: Vec<Name> = (0..DEPLOYMENTS).map(name).collect();
        for host in &hosts {
            fleet.add(&mut documents, host, AgentSpecification { deployments: List::one(host.clone()) });
        }
        for (at, host) in hosts.iter().enumerate() {
            fleet.add(&mut documents, host, deployment(host, at));
        }
        for host in &hosts {
            let arch = "x86_64-linux".parse().unwrap();
            fleet.add(&mut documents, host, UnitSpecification { arch, unit_type: UnitType::Nixos });
        }
        let now = Timestamp::from(SystemTime::now());
        let index = Index {
            branch: branch(),
            documents,
            epoch: Epoch::FIRST,
            expires: now.plus(year),
            fleet: fleet.root.fleet(),
            held: Map::default(),
            issued: now,
            kind: Kind::THIS,
            previous: None,
            schema: Schema::V1,
            tombstones: Map::default(),
            version: IndexVersion::FIRST,
        };
        let file = fleet.sign(index);
        fleet.files.insert(Layout::Flat.index().to_owned(), file);
        fleet
    }

    fn add<S: Specification, const MOST: usize>(
        &mut self,
        documents: &mut Map<DocumentPath, IndexEntry, MOST>,
        host: &Name,
        specification: S,
    ) {
        let metadata = Provenance {
            attribute: format!("nixosConfigurations.{host}").parse().unwrap(),
            drv_path: Some("/nix/store/35ir4klckx5pcsb9drk2xjh46sppdcry-nixos-system-host.drv".parse().unwrap()),
            evaluated_at: "2026-01-01T00:00:00Z".parse().unwrap(),
            source: "git+https://git.example.org/fleet?ref=main".parse().unwrap(),
            source_hash: "sha256-AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=".parse().unwrap(),
            source_revision: Some("a".repeat(40).parse().unwrap()),
        };
        let metadata = metadata.add_to(Metadata::default()).unwrap();
        let document = Draft::new(host.clone(), metadata, specification).at(Revision::FIRST, self.root.fleet());
        let file = self.sign(document);
        let entry = IndexEntry { length: file.len() as u64, revision: Revision::FIRST, sha256: digest(&file) };
        let path = DocumentPath::new(S::FOLDER, host.clone());
        documents.insert(path.clone(), entry).unwrap();
        self.files.insert(path.to_string(), file);
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
        changes.push(put(Layout::Flat.newest_root(), self.root.file()));
        changes.push(put(&Layout::Flat.root(self.root.root().version), self.root.file()));
        let by = Identity { name: "claveld".to_owned(), email: "claveld@clavel.invalid".to_owned() };
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
    DeploymentSpecification {
        template: NarTemplateSpecification {
            metadata: Metadata::default(),
            nar_id: format!("/nix/store/{hash}-nixos-system-{host}-24.05").parse().unwrap(),
            substituters: List::one(cache),
            substituters_public_keys: List::one(key),
        },
        unit: host.clone(),
    }
}

/// Compares the verification of the index and all deployments with the bare ed25519 verifications and SHA-256 digests.
fn measure_everything(fleet: &Fleet) {
    let key = VerifyingKey::from_bytes(fleet.key.public().bytes()).unwrap();
    let deployments: Vec<usize> = (DEPLOYMENTS..2 * DEPLOYMENTS).chain([3 * DEPLOYMENTS]).collect();
    let hashed: Vec<&Vec<u8>> = fleet
        .files
        .iter()
        .filter(|(path, _)| path.starts_with("deployments/") || *path == Layout::Flat.index())
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
            let index = branch.index().unwrap();
            for name in index.names(Folder::Deployments) {
                black_box(branch.document::<DeploymentSpecification>(&index, &name).unwrap());
            }
        }));
    }
    let (ours, bare) = (median(ours), median(bare));
    let ratio = ours.as_secs_f64() / bare.as_secs_f64();
    println(format_args!(
        "{:54} {:>9} {:>9}   {ratio:.2} times (goal: at most 1.2)",
        format!("the index and {DEPLOYMENTS} deployments"),
        format_time(ours),
        format_time(bare)
    ));
}

/// Measures the verification that one agent does on a branch with all deployments, from a fetched repository.
fn measure_one_agent(folder: &Path) {
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
    let what = format!("one agent, {DEPLOYMENTS} deployments on the branch");
    println(format_args!("{what:54} {:>9} {:>9}   (goal: under 50 ms)", format_time(median(times)), ""));
    println(format_args!(
        "{:54} {:>5} KiB {:>9}   (goal: under 20 MB)",
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
    Layout::Flat.check(&repository, tip).unwrap();
    let snapshot = repository.snapshot(tip).unwrap();
    let newest = RootChain::newest_from(&snapshot, &Anchor::Root(Box::new(root))).unwrap();
    verify(&snapshot, newest, &branch_name);
    let time = start.elapsed();
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    println(format_args!("{} {}", time.as_micros(), peak.trim().trim_end_matches(" kB")));
}

fn verify<F: Files>(files: &F, root: TrustedRoot, branch_name: &BranchName) {
    let roots = RootChain::from_anchor(files, &Anchor::Root(Box::new(root))).unwrap();
    let branch = Branch::new(files, &roots.newest, branch_name);
    let index = branch.index().unwrap();
    let host = name(DEPLOYMENTS / 2);
    let agent = branch.document::<AgentSpecification>(&index, &host).unwrap();
    let deployment = branch.document::<DeploymentSpecification>(&index, &agent.specification.deployments[0]).unwrap();
    black_box(branch.document::<UnitSpecification>(&index, &deployment.specification.unit).unwrap());
}
