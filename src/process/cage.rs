//! The cage of a program that works on what others wrote: namespaces of its own, made by bubblewrap (bwrap(1)).
//!
//! The kernel keeps it, whatever the program does. Inside there is the store of Nix, the libraries of the system, the programs that were
//! asked for and a shell, an empty home and an empty temporary folder; there is no network, no process from outside, and no variable
//! of the environment but a few.

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::error::ProcessError;
use super::invocation::Invocation;
use super::limits::{CageBounds, WriteAllowance};

/// The folders of the system's libraries. Packages alone write there, and no secret belongs there.
const SYSTEM_FOLDERS: [&str; 5] = ["/usr/lib", "/usr/lib32", "/usr/lib64", "/usr/libx32", "/usr/share/nix"];
/// Links to folders of `/usr`. On older systems the libraries are in folders of their own.
const SYSTEM_LINKS: [&str; 6] = ["/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32"];
/// The folders of the system's programs.
const PROGRAM_FOLDERS: [&str; 4] = ["/usr/bin", "/usr/sbin", "/bin", "/sbin"];
/// Programs among the libraries. Nix runs git, which runs what the configuration of a repository says, and a flake can bring a
/// repository.
const HIDDEN_FOLDERS: [&str; 2] = ["/usr/lib/git-core", "/usr/lib64/git-core"];
/// The shell. The programs of Nix may be scripts.
const SHELL: &str = "sh";
/// The largest file that a program in a cage may write, in bytes, beyond the size of Nix's database.
const MAX_FILE: u64 = 256 << 20;
/// The most bytes of the temporary folder and of the home together. They are in memory.
const MAX_TEMPORARY: u64 = 256 << 20;
/// The most processes of a program in a cage. Root has no such limit, but for the watch of the process group.
const MAX_PROCESSES: u64 = 256;
/// The most bytes that a program in a cage may write, to the store above all: 2 GiB. A real host has some 15 MiB of `.drv` files where
/// all of them are new. An evaluator that reaches it after a hundred hosts is ended, and the next one goes on behind them.
const MAX_WRITTEN: u64 = 2 << 30;
/// The store of Nix.
const STORE: &str = "/nix/store";
/// The database of a store without a daemon.
const DATABASE: &str = "/nix/var/nix/db/db.sqlite";
/// The lock of its garbage collector.
const GC_LOCK: &str = "/nix/var/nix/gc.lock";
/// The socket of Nix's daemon.
const DAEMON: &str = "/nix/var/nix/daemon-socket/socket";

/// A cage on this machine, which was seen to work.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cage {
    /// The file of `choom`: these programs have no PATH, and no other variable, which a program inside could read.
    choom: PathBuf,
    /// Its arguments, then those of `prlimit` and of `bwrap`.
    arguments: Vec<OsString>,
}

/// The reason why there is no cage on this machine.
#[derive(Debug, thiserror::Error)]
pub enum CageError {
    /// A program in it does not start.
    #[error(
        "cannot isolate the evaluation: install bubblewrap and util-linux, and let claveld's user make user namespaces; or, \
         if you wrote every flake yourself, set `isolation = \"none\"`"
    )]
    NotHere {
        /// The reason.
        source: ProcessError,
    },
    /// Nix has no store yet, and cannot make one.
    #[error("cannot make the store of Nix that an evaluation writes to")]
    NoStore {
        /// The reason.
        source: ProcessError,
    },
    /// The lock of the garbage collector cannot be shown to a program inside.
    #[error("cannot open {GC_LOCK}, the lock of Nix's garbage collector")]
    NoLock {
        /// The error of the operating system.
        source: std::io::Error,
    },
}

/// The files of the programs that make a cage.
struct CageTools {
    /// `choom`(1), of util-linux.
    choom: PathBuf,
    /// `prlimit`(1), of util-linux.
    prlimit: PathBuf,
    /// `bwrap`(1), of bubblewrap.
    bwrap: PathBuf,
}

/// The folders of this machine that a cage shows. `Cage::of` makes the arguments of it.
#[derive(Debug, Default)]
struct CageView {
    /// Folders, each at its own path, that can be read.
    readable: Vec<PathBuf>,
    /// Folders inside of those that are empty, but for programs.
    hidden: Vec<PathBuf>,
    /// Programs: their file, and where it is shown.
    programs: Vec<(PathBuf, PathBuf)>,
    /// Links, and their targets.
    links: Vec<(PathBuf, PathBuf)>,
    /// The folders of the programs.
    path: Vec<PathBuf>,
    /// The size of the database of a store without a daemon; none where a daemon writes to the store.
    database: Option<u64>,
}

impl Cage {
    /// The path, inside, of the folder outside that a program may write to.
    pub const WRITABLE: &str = "/log";

    /// The cage for `programs` on this machine. It tries whether a shell starts in it, which takes less than any of them.
    pub async fn open(programs: &[&str]) -> Result<Self, CageError> {
        let tool = |program: &str| {
            find_program(program).ok_or_else(|| CageError::NotHere {
                source: ProcessError::NotStarted {
                    program: program.to_owned(),
                    source: std::io::ErrorKind::NotFound.into(),
                },
            })
        };
        complete_store().await?;
        let tools = CageTools { choom: tool("choom")?, prlimit: tool("prlimit")?, bwrap: tool("bwrap")? };
        let cage = Self::of(&CageView::of_this_machine(programs), tools);
        let shell = Invocation::new(SHELL).args(["-c", ":"]);
        let tried = shell.within(Duration::from_secs(30)).in_cage(&cage, None).run().await;
        tried.map(|_| cage).map_err(|source| CageError::NotHere { source })
    }

    fn of(view: &CageView, CageTools { choom, prlimit, bwrap }: CageTools) -> Self {
        let mut arguments: Vec<OsString> = Vec::new();
        let mut add = |words: &[&str], paths: &[&Path]| {
            arguments.extend(words.iter().map(OsString::from));
            arguments.extend(paths.iter().map(|path| path.as_os_str().to_owned()));
        };
        // Where the memory of the machine runs out, the kernel ends an evaluation first.
        add(&["--adjust", "1000", "--"], &[&prlimit]);
        let largest_file = MAX_FILE + view.database.unwrap_or_default();
        add(&[&format!("--fsize={largest_file}"), &format!("--nproc={MAX_PROCESSES}"), "--core=0"], &[&bwrap]);
        // No network, no process from outside, no rights in the namespaces of the machine; and it never outlives claveld.
        add(&["--unshare-all", "--die-with-parent", "--new-session", "--clearenv"], &[]);
        let temporary = MAX_TEMPORARY.to_string();
        add(&["--dev", "/dev", "--proc", "/proc", "--size", &temporary, "--tmpfs", "/tmp", "--dir", "/tmp/home"], &[]);
        for path in &view.readable {
            add(&["--ro-bind"], &[path, path]);
        }
        for (link, target) in &view.links {
            add(&["--symlink"], &[target, link]);
        }
        for folder in &view.hidden {
            add(&["--tmpfs"], &[folder]);
        }
        for (file, shown) in &view.programs {
            add(&["--ro-bind"], &[file, shown]);
        }
        for folder in &view.hidden {
            add(&["--remount-ro"], &[folder]);
        }
        add(&["--dir", Self::WRITABLE], &[]);
        if view.database.is_some() {
            // Nix itself writes the `.drv` files, and marks what it uses. It sees no profile and no GC root.
            add(&["--bind", STORE, STORE, "--tmpfs", "/nix/var/nix"], &[]);
            for path in ["/nix/var/nix/db", "/nix/var/nix/temproots", GC_LOCK] {
                add(&["--bind", path, path], &[]);
            }
        } else {
            add(&["--ro-bind", STORE, STORE, "--ro-bind"], &[Path::new(DAEMON), Path::new(DAEMON)]);
            add(&["--setenv", "NIX_REMOTE", "daemon"], &[]);
        }
        add(&["--remount-ro", "/"], &[]);
        // Nix wants the name of its user, and there is no file that has it.
        add(
            &["--setenv", "HOME", "/tmp/home", "--setenv", "USER", "clavel", "--chdir", "/tmp", "--setenv", "PATH"],
            &[],
        );
        arguments.push(std::env::join_paths(&view.path).unwrap_or_default());
        Self { choom, arguments }
    }
}

/// Makes what is missing of a store without a daemon, which Nix makes at its first use: a cage cannot show what is not there, and
/// what Nix made inside would be gone with the cage.
async fn complete_store() -> Result<(), CageError> {
    if Path::new(DAEMON).exists() {
        return Ok(());
    }
    if !Path::new(DATABASE).exists() {
        let init = Invocation::new("nix-store").arg("--init").within(Duration::from_secs(30)).run().await;
        init.map_err(|source| CageError::NoStore { source })?;
    }
    // The garbage collector leaves alone what is used by those that hold this file.
    let lock = fs::File::options().create(true).append(true).open(GC_LOCK);
    lock.map(drop).map_err(|source| CageError::NoLock { source })
}

impl CageView {
    fn of_this_machine(programs: &[&str]) -> Self {
        let mut view = Self::default();
        view.readable.extend(SYSTEM_FOLDERS.iter().map(PathBuf::from).filter(|folder| folder.is_dir()));
        for link in SYSTEM_LINKS.map(PathBuf::from) {
            match fs::read_link(&link) {
                Ok(target) => view.links.push((link, target)),
                Err(_) if link.is_dir() && !PROGRAM_FOLDERS.iter().any(|folder| link == Path::new(folder)) => {
                    view.readable.push(link);
                }
                Err(_) => {}
            }
        }
        view.hidden.extend(HIDDEN_FOLDERS.iter().map(PathBuf::from).filter(|folder| folder.is_dir()));
        for program in programs {
            if let Some((shown, file)) = on_the_path(program) {
                view.add_program(program, &shown, &file);
            }
        }
        if let (Ok(folder), Ok(file)) = (Path::new("/bin").canonicalize(), Path::new("/bin/sh").canonicalize()) {
            view.programs.push((file, folder.join(SHELL)));
        }
        view.path.extend(["/usr/bin", "/bin"].map(PathBuf::from));
        let has_daemon = Path::new(DAEMON).exists();
        view.database = (!has_daemon).then(|| fs::metadata(DATABASE).map_or(0, |about| about.len()));
        view
    }

    /// Adds the program called `name`, which the PATH has as `shown` and whose file without links is `file`. One in the store brings its
    /// folder alone, and one elsewhere the folder above its `bin`, which has its libraries, but of all programs there itself alone.
    fn add_program(&mut self, name: &str, shown: &Path, file: &Path) {
        let Some(folder) = file.parent() else { return };
        if file.starts_with("/nix/store") {
            self.add_to_path(folder);
            return;
        }
        let is_of_system = |path: &Path| PROGRAM_FOLDERS.iter().any(|system| path == Path::new(system));
        if is_of_system(folder) {
            // Where a folder of the system is a link, its target is the one that is made.
            let folder =
                shown.parent().and_then(|shown| shown.canonicalize().ok()).unwrap_or_else(|| folder.to_owned());
            self.programs.push((file.to_owned(), folder.join(name)));
            self.add_to_path(&folder);
            return;
        }
        let above =
            folder.parent().filter(|above| folder.ends_with("bin") && above.parent().is_some() && !is_home(above));
        if let Some(above) = above {
            for (all, one) in [(&mut self.readable, above), (&mut self.hidden, folder)] {
                if !all.iter().any(|known| known == one) {
                    all.push(one.to_owned());
                }
            }
        }
        self.programs.push((file.to_owned(), folder.join(name)));
        self.add_to_path(folder);
    }

    fn add_to_path(&mut self, folder: &Path) {
        if !self.path.iter().any(|known| known == folder) {
            self.path.push(folder.to_owned());
        }
    }
}

/// Whether `folder` is the home of this user, or above it.
fn is_home(folder: &Path) -> bool {
    std::env::var_os("HOME").is_some_and(|home| Path::new(&home).starts_with(folder))
}

/// The file of a program on the PATH, without links.
pub fn find_program(program: &str) -> Option<PathBuf> {
    on_the_path(program).map(|(_, file)| file)
}

/// The path at which the PATH has a program, and its file without links.
fn on_the_path(program: &str) -> Option<(PathBuf, PathBuf)> {
    let path = std::env::var_os("PATH")?;
    let mut files = std::env::split_paths(&path).map(|folder| folder.join(program));
    files.find_map(|file| file.canonicalize().ok().map(|without_links| (file, without_links)))
}

impl Invocation {
    /// Runs the program in `cage`. `writable` is a folder outside that it sees as [`Cage::WRITABLE`].
    ///
    /// Variables that were set before are set inside; all others are not there.
    #[must_use]
    pub fn in_cage(mut self, cage: &Cage, writable: Option<&Path>) -> Self {
        let name = self.short_name();
        let mut arguments = cage.arguments.clone();
        if let Some(folder) = writable {
            arguments.extend(["--bind".into(), folder.as_os_str().to_owned(), Cage::WRITABLE.into()]);
        }
        for (key, value) in std::mem::take(&mut self.environment) {
            if let Some(value) = value {
                arguments.extend(["--setenv".into(), key, value]);
            }
        }
        arguments.extend(["--".into(), std::mem::replace(&mut self.program, cage.choom.clone().into())]);
        arguments.append(&mut self.arguments);
        self.arguments = arguments;
        self.inherits_environment = false;
        self.bounds = Some(CageBounds::new(MAX_PROCESSES, MAX_WRITTEN));
        self.reported_as(&name)
    }

    /// The same run in a cage, which may write only what is left of `allowance`.
    #[must_use]
    pub fn sharing_writes(mut self, allowance: &WriteAllowance) -> Self {
        if let Some(bounds) = &mut self.bounds {
            bounds.shared = Some(allowance.clone());
        }
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(view: &CageView) -> String {
        let tools = CageTools { choom: "/choom".into(), prlimit: "/prlimit".into(), bwrap: "/bwrap".into() };
        let words: Vec<String> =
            Cage::of(view, tools).arguments.iter().map(|a| a.to_string_lossy().into_owned()).collect();
        words.join(" ")
    }

    #[test]
    fn a_cage_shows_what_its_view_names_and_no_more() {
        let view = CageView {
            readable: vec!["/usr/lib".into()],
            hidden: vec!["/usr/lib/git-core".into()],
            programs: vec![("/usr/bin/nix".into(), "/usr/bin/nix-instantiate".into())],
            links: vec![("/lib".into(), "usr/lib".into())],
            path: vec!["/usr/bin".into()],
            database: None,
        };
        let words = words(&view);
        let binds: Vec<&str> = words.split("--ro-bind ").skip(1).map(|bind| bind.split(' ').next().unwrap()).collect();
        assert_eq!(binds, ["/usr/lib", "/usr/bin/nix", "/nix/store", DAEMON]);
        assert!(words.contains("--symlink usr/lib /lib") && words.ends_with("--setenv PATH /usr/bin"), "{words}");
        assert!(
            words.contains("--tmpfs /usr/lib/git-core") && words.contains("--remount-ro /usr/lib/git-core"),
            "{words}"
        );
        assert!(!words.contains("--bind ") && words.contains("--unshare-all"), "{words}");
    }

    #[test]
    fn without_a_daemon_nix_writes_to_the_store_and_to_its_database_alone() {
        let words = words(&CageView { database: Some(1 << 30), ..CageView::default() });
        let binds: Vec<&str> = words.split("--bind").skip(1).map(|bind| bind.split(' ').nth(1).unwrap()).collect();
        assert_eq!(binds, ["/nix/store", "/nix/var/nix/db", "/nix/var/nix/temproots", "/nix/var/nix/gc.lock"]);
        let first = format!("--adjust 1000 -- /prlimit --fsize={}", (1_u64 << 30) + MAX_FILE);
        assert!(words.starts_with(&first), "{words}");
    }

    #[test]
    fn a_program_elsewhere_brings_its_own_folder_and_never_a_home() {
        let mut view = CageView::default();
        let home = PathBuf::from(std::env::var_os("HOME").unwrap_or_else(|| "/root".into()));
        for program in ["/usr/bin/nix", "/nix/store/x-nix/bin/nix", "/opt/nix/bin/nix"] {
            view.add_program("nix", Path::new(program), Path::new(program));
        }
        let own = home.join("bin/nix");
        view.add_program("nix", &own, &own);
        assert_eq!(view.readable, [PathBuf::from("/opt/nix")]);
        assert_eq!(view.hidden, [PathBuf::from("/opt/nix/bin")]);
        let shown: Vec<&PathBuf> = view.programs.iter().map(|(_, shown)| shown).collect();
        assert_eq!(shown, [&PathBuf::from("/usr/bin/nix"), &PathBuf::from("/opt/nix/bin/nix"), &own]);
    }

    #[tokio::test(flavor = "current_thread")]
    async fn a_program_in_a_cage_sees_nothing_of_this_machine() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("secret"), "key").unwrap();
        let cage = Cage::open(&["bash", "cat", "ls", "tr"]).await.unwrap();
        let script = format!(
            "cat {0}/secret; ls /etc /home /root /var; cat /proc/*/environ | tr '\\0' '\\n'; cat /proc/[0-9]*/comm; cat /proc/net/dev /proc/self/oom_score_adj; \
             for program in git hg ssh python3 perl; do command -v $program && echo FOUND $program; done; ls /usr/lib/git-core/*; \
             for folder in / /usr/bin /usr/lib/git-core; do echo x > $folder/x && echo WRITTEN $folder; done; echo kept > /log/kept; exit 0",
            folder.path().display()
        );
        let run = Invocation::new("bash").args(["-c", &script]).env("SHOWN", "shown");
        let output = run.in_cage(&cage, Some(folder.path())).run().await.unwrap();
        let said = String::from_utf8(output.stdout).unwrap();
        assert!(said.contains("SHOWN=shown") && said.contains("lo:") && said.contains("\n1000\n"), "{said}");
        assert!(!said.contains("key") && !said.contains("CARGO") && !said.contains("cargo"), "{said}");
        assert!(!said.contains("eth") && output.stderr.contains("/etc"), "{said}");
        assert!(!said.contains("FOUND") && !said.contains("WRITTEN") && !said.contains("git-core/"), "{said}");
        assert_eq!(fs::read_to_string(folder.path().join("kept")).unwrap(), "kept\n");
        assert!(!Path::new("/usr/bin/x").exists());
    }
}
