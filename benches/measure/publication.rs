//! A fleet that is published from memory, for the benchmarks: a key, a root and a repository in one folder.

use std::path::Path;
use std::time::{Duration, SystemTime};

use clavel::evaluate::{Drafts, EvalWarnings, Evaluation, EvaluationWork};
use clavel::git::Repository;
use clavel::model::{
    AgentSpecification, DeploymentSpecification, DocumentMetadata, Draft, FlakeReference, List, LockedSource, Metadata,
    Name, NarTemplateSpecification, Provenance, PublishPolicy, Specification, System, TemplateMetadata, Timestamp,
    UnitSpecification, UnitType,
};
use clavel::publish::{OrphanPolicy, PublishInput, PublishSettings, Publisher};
use clavel::signers::Signers;
use clavel::store::{self, Output};
use clavel::trust::{Amendment, Anchor, AnchorLocation, KeyLocation, RoleName, SecretKey, Signed};

/// The name of the repository in the folder.
pub(crate) const REPOSITORY: &str = "fleet.git";

/// Makes the key, the root and the repository.
pub(crate) fn prepare(folder: &Path) {
    let key = SecretKey::generate("claveld-1".parse().unwrap()).unwrap();
    key.write_new(&folder.join("key")).unwrap();
    let add = vec![(RoleName::Root, key.public().into()), (RoleName::Publisher, key.public().into())];
    let year = Duration::from_hours(24 * 365);
    let root = Amendment { add, ..Amendment::default() }.first(Timestamp::from(SystemTime::now()).plus(year)).unwrap();
    std::fs::write(folder.join("root.json"), Signed::sign(root, &key).render()).unwrap();
    Repository::open_or_create_bare(&folder.join(REPOSITORY)).unwrap();
}

/// The evaluations of `count` deployments, each with its unit and its agent.
pub(crate) fn evaluations(count: usize, content: usize) -> [Evaluation; 1] {
    let flake: FlakeReference = "git+https://git.example.org/fleet?ref=main".parse().unwrap();
    [evaluation(&flake, count, content)]
}

/// Publishes them once for each content of the first deployment.
pub(crate) fn publish(folder: &Path, evaluations: &mut [Evaluation; 1], contents: std::ops::Range<usize>) {
    let settings = PublishSettings {
        repository: folder.join(REPOSITORY).to_str().unwrap().parse().unwrap(),
        branch: "deployments".parse().unwrap(),
        validity: Duration::from_hours(24 * 7),
        state_directory: folder.join("state"),
        policy: PublishPolicy::WhenEvaluated,
        author: None,
    };
    let signers = Signers::read(&[KeyLocation::File(folder.join("key"))]).unwrap();
    let anchor = Anchor::read(&AnchorLocation::File(folder.join("root.json"))).unwrap();
    let store = store::open(None, Duration::from_mins(1), Output::Capture);
    let publisher = Publisher::new(settings, signers, anchor, store);
    let configured = [evaluations[0].source.flake.clone()];
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    for content in contents {
        evaluations[0].drafts.deployments[0].specification.template.nar_id = path(0, content);
        let orphans = OrphanPolicy::Withdraw;
        let allowed_withdrawals = 0;
        let input = PublishInput {
            configured: &configured,
            evaluations: &*evaluations,
            orphans,
            allowed_withdrawals,
            sources: &[],
        };
        runtime.block_on(publisher.publish(&input)).unwrap();
    }
}

fn evaluation(flake: &FlakeReference, count: usize, content: usize) -> Evaluation {
    let arch: System = "x86_64-linux".parse().unwrap();
    let mut drafts = Drafts::default();
    for at in 0..count {
        let host: Name = format!("host-{at:06}").parse().unwrap();
        let template = NarTemplateSpecification {
            metadata: TemplateMetadata::default(),
            nar_id: path(at, if at == 0 { content } else { 0 }),
            substituters: List::one("https://cache.example.org".parse().unwrap()),
            substituters_public_keys: List::one(
                "cache.example.org-1:6NCHdD59X431o0gWypbMrAURkbJ16ZPMQFGspcDShjY=".parse().unwrap(),
            ),
        };
        drafts.deployments.push(draft(flake, &host, DeploymentSpecification::new(host.clone(), template)));
        drafts.units.push(draft(flake, &host, UnitSpecification { arch: arch.clone(), unit_type: UnitType::Nixos }));
        drafts.agents.push(draft(flake, &host, AgentSpecification { deployments: List::one(host.clone()) }));
    }
    let source = LockedSource {
        flake: flake.clone(),
        locked: flake.clone(),
        hash: "sha256-AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=".parse().unwrap(),
        revision: Some("a".repeat(40).parse().unwrap()),
    };
    Evaluation { source, drafts, warnings: EvalWarnings::default(), work: EvaluationWork::default() }
}

fn path(at: usize, content: usize) -> clavel::model::StorePath {
    format!("/nix/store/{at:016}{content:016}-nixos-system-host-24.05").parse().unwrap()
}

fn draft<S: Specification>(flake: &FlakeReference, host: &Name, specification: S) -> Draft<S> {
    let provenance = Provenance {
        attribute: format!("nixosConfigurations.{host}").parse().unwrap(),
        drv_path: None,
        evaluated_at: Timestamp::from(SystemTime::now()),
        source: flake.clone(),
        source_hash: "sha256-AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=".parse().unwrap(),
        source_revision: Some("a".repeat(40).parse().unwrap()),
    };
    Draft::new(
        host.clone(),
        DocumentMetadata::with_provenance(Metadata::default(), &provenance).unwrap(),
        specification,
    )
}
