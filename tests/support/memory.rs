//! Publishes the fixture fleet without Nix: the evaluation is made in memory, and the systems are written straight into the
//! cache. The rest is real: the library that claveld runs, git, the signatures, and the cache that agents fetch from.
//!
//! This is for promises about what happens after an evaluation. Promises about Nix, and the output of `claveld`, use
//! [`World::publish`] and [`World::build`]. A world uses one way or the other: the store paths differ. At least one promise of
//! each family uses [`World::publish_with_nix`], so that the family also holds for what `claveld once` writes.

use std::path::Path;
use std::time::SystemTime;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use clavel::config::ClaveldConfig;
use clavel::evaluate::{Drafts, EvalWarnings, Evaluation, EvaluationWork};
use clavel::model::{
    AgentSpecification, DeploymentSpecification, DocumentMetadata, Draft, List, LockedSource, Metadata,
    NarTemplateSpecification, Provenance, Specification, System, TemplateMetadata, Timestamp, UnitSpecification,
    UnitType,
};
use clavel::publish::{OrphanPolicy, PublishInput, PublishReport};
use ed25519_dalek::{Signer as _, SigningKey};
use nix_derivation::nixbase32;
use sha2::{Digest as _, Sha256};

use super::world::World;

/// The hosts of the fixture fleet, each with its attribute of the flake and its type.
const HOSTS: [(&str, &str, UnitType); 3] = [
    ("web-1", "nixosConfigurations.web-1", UnitType::Nixos),
    ("web-2", "nixosConfigurations.web-2", UnitType::Nixos),
    ("router-1", "clavel.deployments.router-1", UnitType::Command),
];

/// A system with the files that its builder would make: a store path, as a NAR.
struct BuiltSystem {
    path: String,
    nar: Vec<u8>,
}

impl World {
    /// Publishes the fleet as its files are now, and puts the systems of `hosts` into the cache.
    pub(crate) fn publish_from_memory(&self, hosts: &[&str]) -> PublishReport {
        for host in hosts {
            self.put_into_cache(&self.system(host));
        }
        let config = ClaveldConfig::read(&self.path("claveld.toml")).unwrap();
        let evaluation = self.evaluation(&config);
        let configured = [evaluation.source.flake.clone()];
        let evaluations = [evaluation];
        let orphans = OrphanPolicy::Withdraw;
        let input = PublishInput {
            configured: &configured,
            evaluations: &evaluations,
            orphans,
            allowed_withdrawals: 0,
            sources: &[],
        };
        let publisher = clavel::claveld::publisher(&config.publish).unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(publisher.publish(&input)).unwrap()
    }

    /// Changes the greeting of `web-1`, publishes it, and puts the system into the cache.
    pub(crate) fn change_from_memory(&self, from: &str, to: &str) -> PublishReport {
        self.edit("hosts/web-1.nix", from, to);
        self.publish_from_memory(&["web-1"])
    }

    /// The evaluation of the fleet as its files are now.
    fn evaluation(&self, config: &ClaveldConfig) -> Evaluation {
        let source = &config.sources[0].flake;
        let provenance = |attribute: &str| Provenance {
            attribute: attribute.parse().unwrap(),
            drv_path: None,
            evaluated_at: Timestamp::from(SystemTime::now()),
            source: source.clone(),
            source_hash: format!("sha256-{}", STANDARD.encode([0; 32])).parse().unwrap(),
            source_revision: None,
        };
        let flake = self.read_file("work/flake.nix");
        let is_there = |name: &str| flake.contains(&format!("./hosts/{name}.nix"));
        let mut drafts = Drafts::default();
        for (name, attribute, unit_type) in HOSTS.into_iter().filter(|(name, ..)| is_there(name)) {
            let provenance = provenance(attribute);
            let template = NarTemplateSpecification {
                metadata: TemplateMetadata::default(),
                nar_id: self.system(name).path.parse().unwrap(),
                substituters: list(&[&format!("file://{}", self.at("cache"))]),
                substituters_public_keys: list(&[&self.public_key("cache-1")]),
            };
            let specification = DeploymentSpecification::new(name.parse().unwrap(), template);
            drafts.deployments.push(draft(name, &provenance, self.with_proof(specification)));
            let unit = UnitSpecification { arch: System::this().unwrap(), unit_type };
            drafts.units.push(draft(name, &provenance, unit));
            drafts.agents.push(draft(name, &provenance, AgentSpecification { deployments: list(&[name]) }));
        }
        let hash = format!("sha256-{}", STANDARD.encode([0; 32])).parse().unwrap();
        let source = LockedSource { flake: source.clone(), locked: source.clone(), hash, revision: None };
        Evaluation { source, drafts, warnings: EvalWarnings::default(), work: EvaluationWork::default() }
    }

    /// The specification with the checks and the probation of the file `proof.json`, where there is one.
    fn with_proof(&self, specification: DeploymentSpecification) -> DeploymentSpecification {
        let Ok(proof) = std::fs::read(self.path("proof.json")) else { return specification };
        let mut proof: serde_json::Value = serde_json::from_slice(&proof).unwrap();
        DeploymentSpecification {
            checks: serde_json::from_value(proof["checks"].take()).unwrap(),
            mode: serde_json::from_value(proof["mode"].take()).unwrap(),
            probation: serde_json::from_value(proof["probation"].take()).unwrap(),
            ..specification
        }
    }

    /// The system of a host, with the files that `lib/host.nix` of the fixture makes.
    fn system(&self, host: &str) -> BuiltSystem {
        let text = self.read_file(&format!("work/hosts/{host}.nix"));
        let field = |name: &str| {
            let value = text.lines().find_map(|line| line.trim().strip_prefix(&format!("{name} = \"")));
            let value = value.unwrap_or_else(|| panic!("{host} has no {name}")).trim_end_matches("\";");
            value.replace("\\\"", "\"")
        };
        let script = format!("#!/bin/sh\nset -e\n{}\n", field("activate"));
        let mut nar = Vec::new();
        put(&mut nar, b"nix-archive-1");
        folder(&mut nar, |nar| {
            entry(nar, "bin", |nar| {
                folder(nar, |nar| {
                    entry(nar, "switch-to-configuration", |nar| file(nar, script.as_bytes(), FileMode::Executable));
                });
            });
            entry(nar, "etc", |nar| {
                folder(nar, |nar| {
                    entry(nar, "motd", |nar| file(nar, format!("{}\n", field("motd")).as_bytes(), FileMode::Plain));
                });
            });
            entry(nar, "nixos-version", |nar| file(nar, format!("{}\n", field("version")).as_bytes(), FileMode::Plain));
            if text.contains("inhibitors = ") {
                entry(nar, "switch-inhibitors", |nar| file(nar, field("inhibitors").as_bytes(), FileMode::Plain));
            }
        });
        let name = format!("nixos-system-{}-{}", field("name"), field("version"));
        BuiltSystem { path: store_path(&name, &nar), nar }
    }

    /// Writes a system into the cache, signed with the cache's key.
    fn put_into_cache(&self, system: &BuiltSystem) {
        let BuiltSystem { path, nar } = system;
        let hash = nixbase32::encode(&Sha256::digest(nar));
        let size = nar.len();
        let (name, key) = secret_key(&self.path("cache-1.secret"));
        let fingerprint = format!("1;{path};sha256:{hash};{size};");
        let signature = STANDARD.encode(key.sign(fingerprint.as_bytes()).to_bytes());
        let file = format!("nar/{hash}.nar");
        std::fs::create_dir_all(self.path("cache/nar")).unwrap();
        std::fs::write(self.path(&format!("cache/{file}")), nar).unwrap();
        let id = &path["/nix/store/".len()..][..32];
        self.write_file(
            &format!("cache/{id}.narinfo"),
            &format!(
                "StorePath: {path}\nURL: {file}\nCompression: none\nFileHash: sha256:{hash}\nFileSize: {size}\n\
                 NarHash: sha256:{hash}\nNarSize: {size}\nReferences: \nSig: {name}:{signature}\n"
            ),
        );
    }
}

fn list<T: std::str::FromStr<Err: std::fmt::Debug>, const MOST: usize>(items: &[&str]) -> List<T, MOST> {
    items.iter().map(|item| item.parse().unwrap()).collect::<Vec<T>>().try_into().unwrap()
}

/// The name and the key in a file that Clavel or Nix made.
fn secret_key(path: &Path) -> (String, SigningKey) {
    let text = std::fs::read_to_string(path).unwrap();
    let (name, encoded) = text.trim().split_once(':').unwrap();
    let pair: [u8; 64] = STANDARD.decode(encoded).unwrap().try_into().unwrap();
    (name.to_owned(), SigningKey::from_keypair_bytes(&pair).unwrap())
}

/// The store path of content without references, as `nix store add-path` would name it.
fn store_path(name: &str, nar: &[u8]) -> String {
    let hash = hex(&Sha256::digest(nar));
    let digest = Sha256::digest(format!("source:sha256:{hash}:/nix/store:{name}").as_bytes());
    let mut short = [0_u8; 20];
    for (at, byte) in digest.iter().enumerate() {
        short[at % 20] ^= byte;
    }
    format!("/nix/store/{}-{name}", nixbase32::encode(&short))
}

fn hex(bytes: &[u8]) -> String {
    faster_hex::hex_string(bytes)
}

fn draft<S: Specification>(name: &str, provenance: &Provenance, specification: S) -> Draft<S> {
    let (name, provenance) = (name.parse().unwrap(), provenance.clone());
    Draft::new(name, DocumentMetadata::with_provenance(Metadata::default(), &provenance).unwrap(), specification)
}

/// Whether a file of a NAR is a program.
#[derive(Clone, Copy, PartialEq, Eq)]
enum FileMode {
    Plain,
    Executable,
}

/// Appends a string of a NAR: its length, its bytes, and zeros up to a multiple of eight bytes.
fn put(nar: &mut Vec<u8>, text: &[u8]) {
    nar.extend((text.len() as u64).to_le_bytes());
    nar.extend(text);
    nar.resize(nar.len().next_multiple_of(8), 0);
}

fn put_all(nar: &mut Vec<u8>, words: &[&str]) {
    for word in words {
        put(nar, word.as_bytes());
    }
}

fn folder(nar: &mut Vec<u8>, entries: impl FnOnce(&mut Vec<u8>)) {
    put_all(nar, &["(", "type", "directory"]);
    entries(nar);
    put_all(nar, &[")"]);
}

fn entry(nar: &mut Vec<u8>, name: &str, node: impl FnOnce(&mut Vec<u8>)) {
    put_all(nar, &["entry", "(", "name", name, "node"]);
    node(nar);
    put_all(nar, &[")"]);
}

fn file(nar: &mut Vec<u8>, content: &[u8], mode: FileMode) {
    put_all(nar, &["(", "type", "regular"]);
    if mode == FileMode::Executable {
        put_all(nar, &["executable", ""]);
    }
    put_all(nar, &["contents"]);
    put(nar, content);
    put_all(nar, &[")"]);
}
