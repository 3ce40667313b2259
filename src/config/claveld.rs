//! The settings of claveld, from `claveld.toml`.

use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Deserialize;

use super::credentials::{CredentialsTable, access_rules, check_credential_name, with_ssh_command};
use super::mirrors::{MAX_MIRRORS, check_mirrors};
use super::{ConfigError, ConfigFile, Size, WrittenAnchor};
use crate::git::{Access, AccessRules, Identity, Remote};
use crate::model::{
    BranchName, FlakeReference, InputOrigin, InputPolicy, Isolation, List, Pattern, PublicKey, PublishPolicy,
    SelfCheck, Source, Span, Substituter,
};
use crate::trust::{AnchorLocation, KeyLocation};

const MINUTE: Duration = Duration::from_mins(1);
/// The smallest memory limit of evaluations, in bytes.
const LEAST_MEMORY: u64 = 64 << 20;
const DAY: Duration = Duration::from_hours(24);

/// The settings of claveld.
#[derive(Debug)]
pub struct ClaveldConfig {
    /// The sources to watch; at least one.
    pub sources: Vec<Source>,
    /// The settings of publishing.
    pub publish: PublishConfig,
    /// The settings of evaluations.
    pub evaluate: EvaluateConfig,
    /// The file of metrics that each round writes.
    pub metrics_file: Option<PathBuf>,
    /// How often claveld polls the sources that it cannot watch.
    pub poll_interval: Duration,
}

/// The settings of evaluations.
#[derive(Debug)]
pub struct EvaluateConfig {
    /// How long one run of Nix may take.
    pub deadline: Duration,
    /// How long the evaluation of one source may take in all.
    pub source_time: Duration,
    /// How many processes run at once. The default is the number of processors.
    pub processes: Option<NonZeroUsize>,
    /// How much memory all of them may use together, in bytes. The default is most of the machine's memory.
    pub memory: Option<u64>,
    /// The folder of the evaluation records.
    pub records: PathBuf,
    /// Whether evaluations run in a cage.
    pub isolation: Isolation,
    /// How often `claveld run` evaluates everything anew and compares.
    pub self_check: SelfCheck,
    /// The places from which inputs may come.
    pub inputs: InputPolicy,
    /// How the repositories of sources and inputs are reached.
    pub access: AccessRules,
}

/// The settings of publishing.
#[derive(Debug)]
pub struct PublishConfig {
    /// The repository that carries the branch.
    pub repository: Remote,
    /// The repositories that claveld pushes the branch on to; at most 15.
    pub mirrors: Vec<Remote>,
    /// The branch.
    pub branch: BranchName,
    /// The trust anchor: a file with a root, or the digest of the fleet's first root.
    pub root: AnchorLocation,
    /// The locations of the secret keys; at least one. Claveld signs every document with each of them.
    pub secret_keys: Vec<KeyLocation>,
    /// How long an index is valid.
    pub validity: Duration,
    /// The folder of claveld's state, with its copy of a repository that is elsewhere.
    pub state_directory: PathBuf,
    /// When claveld publishes a deployment.
    pub policy: PublishPolicy,
    /// The author and committer of claveld's commits; none for `claveld` with the name of its key.
    pub author: Option<Identity>,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
struct ClaveldFile {
    state_directory: Option<PathBuf>,
    metrics_file: Option<PathBuf>,
    publish: PublishTable,
    #[serde(default)]
    credentials: Vec<CredentialsTable>,
    #[serde(default)]
    evaluate: EvaluateTable,
    #[serde(default)]
    watch: WatchTable,
    #[serde(default)]
    source: Vec<SourceTable>,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
struct PublishTable {
    repository: Remote,
    #[serde(default)]
    mirrors: List<Remote, MAX_MIRRORS>,
    branch: Option<BranchName>,
    root: WrittenAnchor,
    secret_key_file: Option<PathBuf>,
    secret_key_credential: Option<String>,
    secret_key_signer: Option<PathBuf>,
    secret_key_agent: Option<SshAgentTable>,
    expires_after: Option<Span>,
    author: Option<Identity>,
    ssh_command: Option<String>,
    #[serde(default)]
    wait_for_cache: bool,
    #[serde(default)]
    pin: bool,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
struct SshAgentTable {
    socket: PathBuf,
    public_key: PublicKey,
}

impl PublishTable {
    /// The locations of the secret keys. Relative paths are relative to `directory`.
    fn secret_keys(&mut self, directory: &Path) -> Result<Vec<KeyLocation>, (&'static str, String)> {
        let mut locations = Vec::new();
        locations.extend(self.secret_key_file.take().map(|path| KeyLocation::File(directory.join(path))));
        if let Some(name) = self.secret_key_credential.take() {
            check_credential_name(&name).map_err(|why| ("publish.secret-key-credential", why))?;
            locations.push(KeyLocation::Credential(name));
        }
        locations.extend(self.secret_key_signer.take().map(|socket| KeyLocation::Signer(directory.join(socket))));
        let ssh_agent = self.secret_key_agent.take();
        let location = ssh_agent
            .map(|table| KeyLocation::SshAgent { socket: directory.join(table.socket), key: table.public_key });
        locations.extend(location);
        if locations.is_empty() {
            let why = "there is no key to sign with; name one here, or with secret-key-signer, secret-key-credential or \
                       secret-key-agent";
            return Err(("publish.secret-key-file", why.to_owned()));
        }
        Ok(locations)
    }
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
struct EvaluateTable {
    timeout: Option<Span>,
    source_timeout: Option<Span>,
    processes: Option<NonZeroUsize>,
    memory: Option<Size>,
    #[serde(default)]
    isolation: Isolation,
    #[serde(default)]
    self_check: SelfCheck,
    inputs: Option<List<InputOrigin, 64>>,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
struct WatchTable {
    poll: Option<Span>,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
struct SourceTable {
    flake: FlakeReference,
    #[serde(default)]
    substituters: List<Substituter, 32>,
    #[serde(default)]
    substituters_public_keys: List<PublicKey, 32>,
    #[serde(default)]
    include: Vec<Pattern>,
    #[serde(default)]
    exclude: Vec<Pattern>,
    #[serde(default)]
    names: Vec<Pattern>,
}

impl ClaveldConfig {
    /// The default path of the file.
    pub const DEFAULT_PATH: &'static str = "/etc/clavel/claveld.toml";

    /// Reads the file at `path`.
    pub fn read(path: &Path) -> Result<Self, ConfigError> {
        super::read::<ClaveldFile>(path)
    }
}

impl ConfigFile for ClaveldFile {
    type Settings = ClaveldConfig;

    fn into_settings(mut self, directory: &Path) -> Result<ClaveldConfig, (&'static str, String)> {
        let sources: Vec<Source> = self.source.into_iter().map(SourceTable::into_settings).collect();
        if sources.is_empty() {
            return Err(("source", "there is none, so nothing would ever be published; add a [[source]]".to_owned()));
        }
        let duplicate =
            sources.iter().enumerate().find(|(at, s)| sources[..*at].iter().any(|other| other.flake == s.flake));
        if let Some((_, source)) = duplicate {
            return Err(("source", format!("{} is listed twice", source.flake)));
        }
        let validity = self.publish.expires_after.map_or(7 * DAY, Span::get);
        if validity < MINUTE {
            return Err(("publish.expires-after", "less than a minute leaves agents no time to fetch".to_owned()));
        }
        let state_directory = directory.join(self.state_directory.unwrap_or_else(|| "/var/lib/claveld".into()));
        let memory = self.evaluate.memory.map(|size| size.0);
        if memory.is_some_and(|memory| memory < LEAST_MEMORY) {
            return Err(("evaluate.memory", "Nix does not even start with less than 64 MiB".to_owned()));
        }
        check_mirrors(&self.publish.repository, &self.publish.mirrors).map_err(|why| ("publish.mirrors", why))?;
        let secret_keys = self.publish.secret_keys(directory)?;
        let default = with_ssh_command(self.publish.ssh_command);
        let access = access_rules(self.credentials, default, directory)?;
        Ok(ClaveldConfig {
            sources,
            metrics_file: self.metrics_file.map(|file| directory.join(file)),
            evaluate: EvaluateConfig {
                deadline: self.evaluate.timeout.map_or(10 * MINUTE, Span::get),
                source_time: self.evaluate.source_timeout.map_or(60 * MINUTE, Span::get),
                processes: self.evaluate.processes,
                memory,
                records: state_directory.join("evaluations"),
                isolation: self.evaluate.isolation,
                self_check: self.evaluate.self_check,
                inputs: self.evaluate.inputs.map_or_else(InputPolicy::default, |origins| origins.to_vec().into()),
                // `publish.ssh-command` is about the repository and its mirrors alone.
                access: AccessRules { default: Access::default(), ..access.clone() },
            },
            publish: PublishConfig {
                repository: access.apply_to(published_to("publish.repository", self.publish.repository)?),
                mirrors: self
                    .publish
                    .mirrors
                    .iter()
                    .map(|mirror| Ok(access.apply_to(mirrored_to(mirror.clone())?)))
                    .collect::<Result<_, _>>()?,
                branch: self.publish.branch.map_or_else(default_branch, Ok)?,
                root: self.publish.root.0.below(directory),
                secret_keys,
                validity,
                author: self.publish.author,
                state_directory,
                policy: match self.publish {
                    PublishTable { pin: true, .. } => PublishPolicy::WhenPinned,
                    PublishTable { wait_for_cache: true, .. } => PublishPolicy::WhenCached,
                    PublishTable { .. } => PublishPolicy::WhenEvaluated,
                },
            },
            poll_interval: self.watch.poll.map_or(MINUTE, Span::get),
        })
    }
}

impl SourceTable {
    fn into_settings(self) -> Source {
        let Self { flake, substituters, substituters_public_keys, include, exclude, names } = self;
        Source { flake, substituters, substituters_public_keys, include, exclude, names }
    }
}

/// A mirror that claveld writes to: a repository, or a static folder of this machine.
fn mirrored_to(mirror: Remote) -> Result<Remote, (&'static str, String)> {
    const KEY: &str = "publish.mirrors";
    match mirror.static_url() {
        Some(url) if url.folder().is_none() => {
            let why = format!(
                "{url} is a static folder of a server, which claveld cannot write to; write static+file:///FOLDER, and let the server serve that"
            );
            Err((KEY, why))
        }
        Some(_) => Ok(mirror),
        None => published_to(KEY, mirror),
    }
}

/// A repository that claveld writes to, from the value of `key`. A bundle and a static folder are made from one, and not written to.
fn published_to(key: &'static str, repository: Remote) -> Result<Remote, (&'static str, String)> {
    if let Some(url) = repository.static_url() {
        let why = format!(
            "{url} is a static folder, which is a copy of a repository; name a git repository, and the folder in `mirrors`"
        );
        return Err((key, why));
    }
    match repository.bundle() {
        Some(bundle) => Err((
            key,
            format!(
                "{bundle} is a bundle, which is only read; name a git repository, and make bundles of it with `clavel bundle create`"
            ),
        )),
        None => Ok(repository),
    }
}

pub(super) fn default_branch() -> Result<BranchName, (&'static str, String)> {
    "deployments".parse().map_err(|error| ("branch", format!("{error}")))
}

#[cfg(test)]
mod tests {
    use super::super::credentials::CREDENTIALS_KEYS;
    use super::*;
    use crate::model::describe_error;

    const MINIMAL: &str = r#"
        [publish]
        repository = "/srv/git/fleet.git"
        root = "root.json"
        secret-key-file = "claveld.secret"
        [[source]]
        flake = "git+file:///srv/git/fleet.git?ref=main"
    "#;

    fn read(text: &str) -> Result<ClaveldConfig, ConfigError> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("claveld.toml");
        std::fs::write(&path, text).unwrap();
        ClaveldConfig::read(&path)
    }

    #[test]
    fn a_minimal_file_is_valid() {
        let config = read(MINIMAL).unwrap();
        assert_eq!(config.evaluate.deadline, Duration::from_mins(10));
        assert_eq!(config.publish.validity, 7 * DAY);
        assert!(matches!(&config.publish.secret_keys[..], [KeyLocation::File(path)] if path.is_absolute()));
    }

    #[test]
    fn an_error_names_the_file_and_the_line() {
        for (from, to, expected) in [
            ("[publish]", "[publish]\nbranhc = \"x\"", "line 3"),
            ("[publish]", "[publish]\nbranhc = \"x\"", "unknown field `branhc`"),
            (
                "[publish]\n        repository = \"",
                "[publish]\n        repository = \"https://TOKEN@h",
                "[[credentials]]",
            ),
            ("[publish]", "[publish]\nmirrors = [\"https://TOKEN@h/x\"]", "[[credentials]]"),
            (
                "[publish]",
                "[publish]\nmirrors = [\"/srv/git/fleet.git\"]",
                "`publish.mirrors`: /srv/git/fleet.git is named twice",
            ),
            ("git+file://", "git+https://TOKEN@h", "netrc"),
            ("git+file://", "git+ssh://git:TOKEN@h", "netrc"),
            ("git+file:///srv/git/fleet.git?", "https://h/x?access_token=TOKEN&", "netrc"),
            ("[[source]]", "[[source]]\nsubstituters = [\"https://TOKEN@h\"]", "netrc"),
            ("secret-key-file", "#", "`publish.secret-key-file`: there is no key to sign with"),
            ("secret-key-file", "secret-key-credential = \"../key\"\nsecret-key-file", "not the name of a credential"),
            ("secret-key-file", "secret-key-agent = { socket = \"s\" }\nsecret-key-file", "missing field `public-key`"),
            ("/srv/git/fleet.git\"\n        root", "--upload-pack=x\"\n        root", "--upload-pack=x"),
            ("[publish]", "[publish]\nauthor = \"Bot\"", "it has to read like Clavel Bot <bot@example.org>"),
            ("[[source]]", "[evaluate]\ntimeout = \"soon\"\n[[source]]", "a length of time"),
            ("[[source]]", "[evaluate]\nmemory = \"1 KiB\"\n[[source]]", "evaluate.memory"),
            ("[[source]]", "[evaluate]\nmemory = \"lots\"\n[[source]]", "write it like 512 MiB or 4 GiB"),
            ("[[source]]", "[evaluate]\nself-check = \"monthly\"\n[[source]]", "unknown variant `monthly`"),
            ("[[source]]", "[evaluate]\nprocesses = 0\n[[source]]", "nonzero"),
            ("[publish]", "state-directory = 7\n[publish]", "line 2"),
            ("[[source]]\n", "[[source]]\nflake = \"x\"\n[[source]]\nflake = \"x\"\n[[source]]\n", "is listed twice"),
            ("[[source]]", "[[source]]\ninclude = [\"web-*\", \"\"]", "is not a pattern"),
            ("[publish]", "[publish", "line 2"),
        ] {
            let error = read(&MINIMAL.replacen(from, to, 1)).unwrap_err().to_string();
            assert!(error.contains(expected) && error.contains("claveld.toml"), "{error}");
            assert!(!error.contains("TOKEN"), "{error}");
        }
        let error = describe_error(&ClaveldConfig::read(Path::new("/does/not/exist.toml")).unwrap_err());
        assert!(error.starts_with("cannot read the configuration /does/not/exist.toml: "), "{error}");
    }

    #[test]
    fn mirrors_are_fifteen_at_most_and_reached_as_the_credentials_say() {
        let with = |mirrors: &str, tables: &str| {
            read(&format!("{}{tables}", MINIMAL.replacen("[publish]", &format!("[publish]\nmirrors = [{mirrors}]"), 1)))
        };
        let table = "[[credentials]]\nurl = \"https://h\"\ntoken-file = \"/t\"\n";
        let config = with("\"https://h/fleet.git\", \"/srv/mirror.git\"", table).unwrap();
        let has_credentials: Vec<bool> =
            config.publish.mirrors.iter().map(|mirror| mirror.access().unwrap().credentials.is_some()).collect();
        assert_eq!(has_credentials, [true, false]);
        let sixteen = (0..16).map(|n| format!("\"/srv/{n}.git\",")).collect::<Vec<_>>().concat();
        assert!(with(&sixteen, "").unwrap_err().to_string().contains("at most 15"));
    }

    #[test]
    fn no_error_shows_a_secret_in_a_wrong_place() {
        // The first has `+` and `/`. The second has neither, so TOML accepts it as a bare key.
        for base64 in [
            "0gWypbMrAURkbJ16ZPMQFGspc+ShjY6NCHdD59X431o0gWypbMrAURkbJ16Z/MQFGspcDShjYabcdefghijklm==",
            "0gWypbMrAURkbJ16ZPMQFGspcDShjY6NCHdD59X431o0gWypbMrAURkbJ16Z",
        ] {
            let secret = format!("claveld-1:{base64}");
            for (from, to) in [
                ("secret-key-file", format!("secret-key = \"{secret}\"\nsecret-key-file")),
                ("\"claveld.secret\"", secret.clone()),
                ("\"claveld.secret\"", format!("[\"{secret}\"]")),
                ("secret-key-file = \"claveld.secret\"", secret.clone()),
                ("secret-key-file = \"claveld.secret\"", base64.to_owned()),
                ("secret-key-file", format!("{base64} = 1\nsecret-key-file")),
                ("secret-key-file", format!("\"{secret}\" = 1\nsecret-key-file")),
                ("secret-key-file", format!("branch = \"{secret}\"\nsecret-key-file")),
                ("secret-key-file", format!("author = \"{secret}\"\nsecret-key-file")),
                ("secret-key-file", format!("author = \"A <{secret}>>\"\nsecret-key-file")),
                ("secret-key-file", format!("wait-for-cache = \"{secret}\"\nsecret-key-file")),
                ("secret-key-file", format!("expires-after = \"{secret}\"\nsecret-key-file")),
                ("secret-key-file", format!("secret-key-credential = \"{secret}\"\nsecret-key-file")),
                (
                    "secret-key-file",
                    format!("secret-key-agent = {{ socket = \"s\", public-key = \"{secret}\" }}\nsecret-key-file"),
                ),
                ("[[source]]", format!("[[source]]\nsubstituters-public-keys = [\"{secret}\"]")),
                ("[[source]]", format!("[evaluate]\nmemory = \"{secret}\"\n[[source]]")),
                ("\"root.json\"", format!("\"root.json\" # {secret}\nroot = 7")),
                ("git+file", format!("--{secret}")),
            ] {
                let error = read(&MINIMAL.replacen(from, &to, 1)).unwrap_err().to_string();
                let is_shown = |piece: &[u8]| error.contains(std::str::from_utf8(piece).unwrap());
                assert!(!base64.as_bytes().windows(12).any(is_shown), "{to}: {error}");
            }
        }
    }

    #[test]
    fn the_example_is_valid_and_has_every_setting() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/claveld.toml");
        ClaveldConfig::read(&path).unwrap();
        let text = std::fs::read_to_string(path).unwrap();
        let own = [
            "metrics-file",
            "state-directory",
            "repository",
            "mirrors",
            "branch",
            "root",
            "secret-key-file",
            "secret-key-credential",
            "secret-key-signer",
            "secret-key-agent",
            "expires-after",
            "author",
            "ssh-command",
            "wait-for-cache",
            "pin",
            "timeout",
            "source-timeout",
            "processes",
            "memory",
            "poll",
            "flake",
            "substituters",
            "substituters-public-keys",
            "include",
            "exclude",
            "names",
        ];
        for key in own.into_iter().chain(CREDENTIALS_KEYS) {
            assert!(text.contains(&format!("{key} = ")), "the example lacks {key}");
        }
    }
}
