//! The script of a way back, for sh(1). No I/O.
//!
//! It runs where nothing of Clavel may work any more, so it names everything by its path, and needs the programs of the system that it
//! goes back to alone.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::super::activating::ActivationProgram;
use crate::model::StorePath;

/// How often the programs are tried.
const TRIES: u32 = 3;
/// The seconds between two tries, and those that an activation has to end by itself.
const PAUSE: u32 = 10;
/// The seconds between two looks after a start of the machine.
const LOOK: u64 = 5;

/// What a way back does.
#[derive(Debug)]
pub(super) struct Script<'a> {
    /// What it goes back from, for people; one line.
    pub(super) title: String,
    /// The folder with `armed` and `taken`.
    pub(super) folder: &'a Path,
    /// The lock of the unit's activations.
    pub(super) lock: &'a Path,
    /// The file to remove for the room that it has.
    pub(super) reserve: PathBuf,
    /// The words that kill an activation that does not end.
    pub(super) kill: Vec<OsString>,
    /// The folders of the programs that it uses.
    pub(super) search_path: OsString,
    /// The home of the agent's user.
    pub(super) home: Option<OsString>,
    /// The profile that it moves; none where the programs move it.
    pub(super) profile: Option<ProfileMove>,
    /// The programs that activate what ran before.
    pub(super) programs: Vec<ActivationProgram>,
    /// How long a revision has after a start of the machine, at which no timer runs.
    pub(super) after_start: Duration,
    /// The words of what follows once it is done.
    pub(super) then: Vec<OsString>,
}

/// A profile, and where it has to lead to.
#[derive(Debug)]
pub(super) struct ProfileMove {
    pub(super) profile: PathBuf,
    /// The name of the link that the profile leads to now, in its folder, where it leads to a generation.
    pub(super) generation: Option<OsString>,
    pub(super) target: StorePath,
}

/// A script that is being written.
struct Writer(Vec<u8>);

impl Writer {
    fn line(&mut self, text: &str) {
        self.0.extend_from_slice(text.as_bytes());
        self.0.push(b'\n');
    }

    /// A line that sets a variable.
    fn set(&mut self, name: &str, value: &OsStr) {
        self.0.extend_from_slice(name.as_bytes());
        self.0.push(b'=');
        self.quoted(value);
        self.0.push(b'\n');
    }

    fn words(&mut self, before: &str, words: &[OsString], after: &str) {
        self.0.extend_from_slice(before.as_bytes());
        for word in words {
            self.0.push(b' ');
            self.quoted(word);
        }
        self.line(after);
    }

    /// The text as one word of the shell, whatever is in it.
    fn quoted(&mut self, text: &OsStr) {
        self.0.push(b'\'');
        for byte in text.as_bytes() {
            match byte {
                b'\'' => self.0.extend_from_slice(b"'\\''"),
                other => self.0.push(*other),
            }
        }
        self.0.push(b'\'');
    }
}

impl Script<'_> {
    pub(super) fn render(&self) -> Vec<u8> {
        let mut script = Writer(Vec::new());
        script.line("#!/bin/sh");
        script.line(&format!("# {}", self.title));
        script.line(
            "# clavel-agent wrote this before the switch. It needs neither the agent, nor Nix, nor a network. Its argument is the first\n\
             # line of the file `armed` beside it, without which it does nothing, or `boot` after a start of the machine.",
        );
        script.line("set -u");
        script.set("PATH", &self.search_path);
        script.line("export PATH");
        if let Some(home) = &self.home {
            script.set("HOME", home);
            script.line("export HOME");
        }
        script.set("folder", self.folder.as_os_str());
        script.set("lock", self.lock.as_os_str());
        script.line("token=${1-}");
        script.line(
            "is_armed() {\n    { read -r found <\"$folder/armed\"; } 2>/dev/null && [ \"$found\" = \"$token\" ]\n}",
        );
        script.line(&format!(
            "if [ \"$token\" = boot ]; then\n    \
                 {{ read -r token <\"$folder/armed\"; }} 2>/dev/null || exit 0\n    \
                 waited=0\n    \
                 while [ \"$waited\" -lt {} ]; do\n        \
                     is_armed || exit 0\n        \
                     sleep {LOOK}\n        \
                     waited=$((waited + {LOOK}))\n    \
                 done\n\
             fi\n\
             is_armed || exit 0",
            self.after_start.as_secs(),
        ));
        script.line("# Nothing else activates the unit meanwhile. An activation that does not end is killed.");
        script.line(&format!("if [ -w \"$lock\" ] && exec 9>>\"$lock\" && ! flock -w {PAUSE} 9; then"));
        script.words("   ", &self.kill, "");
        script.line(&format!("    flock -w {PAUSE} 9 || echo 'going back although another activation runs' >&2\nfi"));
        script.line("is_armed || exit 0");
        script.words("echo", &[self.title.clone().into()], " >&2");
        script.line("# The disk may be full: the agent has kept this room for it.");
        script.words("rm -f", &[self.reserve.clone().into_os_string()], "");
        script.line("go_back() {");
        if let Some(profile) = &self.profile {
            profile.render(&mut script);
        }
        for program in &self.programs {
            render_program(program, &mut script);
        }
        script.line("}");
        script.line(&format!(
            "try=1\n\
             until go_back; do\n    \
                 status=$?\n    \
                 [ \"$try\" -lt {TRIES} ] || break\n    \
                 try=$((try + 1))\n    \
                 sleep {PAUSE}\n    \
                 status=0\n\
             done\n\
             : \"${{status:=0}}\"\n\
             # A full disk has no room for the status, and a name needs none.\n\
             if printf '%s\\n%s\\n' \"$token\" \"$status\" >\"$folder/taken.new\"; then\n    \
                 mv -f \"$folder/taken.new\" \"$folder/taken\" && rm -f \"$folder/armed\"\n\
             else\n    \
                 mv -f \"$folder/armed\" \"$folder/taken\"\n\
             fi",
        ));
        if !self.then.is_empty() {
            script.words("[ \"$status\" -ne 0 ] ||", &self.then, "");
        }
        script.line("exit \"$status\"");
        script.0
    }
}

impl ProfileMove {
    fn render(&self, script: &mut Writer) {
        let Self { profile, generation, target } = self;
        script.line(
            "    # The profile leads to a generation, which is a link beside it. The one from before may be deleted.",
        );
        script.set("    profile", profile.as_os_str());
        script.set("    target", OsStr::new(&target.to_string()));
        script.set("    generation", generation.as_deref().unwrap_or_default());
        script.line(
            "    at=${profile%/*}\n    \
                 if [ -z \"$generation\" ] || [ \"$(readlink \"$at/$generation\")\" != \"$target\" ]; then\n        \
                     number=1\n        \
                     while [ -L \"$profile-$number-link\" ]; do number=$((number + 1)); done\n        \
                     generation=${profile##*/}-$number-link\n        \
                     ln -s \"$target\" \"$at/$generation\" || return 1\n    \
                 fi\n    \
                 rm -f \"$profile.way-back\" && ln -s \"$generation\" \"$profile.way-back\" && mv -fT \"$profile.way-back\" \"$profile\" || return 1",
        );
    }
}

fn render_program(program: &ActivationProgram, script: &mut Writer) {
    script.line("    (");
    for (name, value) in &program.environment {
        let Some(name) = name.to_str() else { continue };
        match value {
            Some(value) => {
                script.set(&format!("        export {name}"), value);
            }
            None => script.line(&format!("        unset {name}")),
        }
    }
    let directory = program.directory.clone().unwrap_or_else(|| "/".into());
    script.words("        cd --", &[directory], " || exit 1");
    let words: Vec<OsString> = [&program.program].into_iter().chain(&program.arguments).cloned().collect();
    // What it leaves running must not keep the lock.
    script.words("        exec", &words, " 9>&-");
    script.line("    ) || return");
}

/// The folders in which the programs of a script are looked for: those of this process without links, and those of the system that ran
/// before. A folder that the new system replaces, such as /run/current-system/sw/bin, is the old one's.
pub(super) fn search_path(folders: impl Iterator<Item = PathBuf>) -> OsString {
    let mut found: Vec<PathBuf> = Vec::new();
    for folder in folders {
        if !found.contains(&folder) && !folder.as_os_str().as_bytes().contains(&b':') {
            found.push(folder);
        }
    }
    let parts: Vec<&[u8]> = found.iter().map(|folder| folder.as_os_str().as_bytes()).collect();
    OsString::from_vec(parts.join(&b':'))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;
    use std::process::{Command, Output};

    use super::*;

    struct Bench(tempfile::TempDir);

    impl Bench {
        fn new() -> Self {
            let bench = Self(tempfile::tempdir().unwrap());
            std::fs::create_dir(bench.at("store")).unwrap();
            symlink(Bench::old().to_string(), bench.at("system-1-link")).unwrap();
            symlink("/nix/store/35ir4klckx5pcsb9drk2xjh46sppdcry-new", bench.at("system-2-link")).unwrap();
            symlink("system-2-link", bench.at("system")).unwrap();
            bench
        }

        fn at(&self, name: &str) -> PathBuf {
            self.0.path().join(name)
        }

        fn old() -> StorePath {
            "/nix/store/35ir4klckx5pcsb9drk2xjh46sppdcry-old".parse().unwrap()
        }

        /// Runs the script with this argument, where this is armed and the activation of what ran before is this script.
        fn run(&self, argument: &str, armed: &str, activation: &str) -> Output {
            std::fs::write(self.at("armed"), armed).unwrap();
            let program = ActivationProgram {
                program: "/bin/sh".into(),
                arguments: vec!["-c".into(), activation.into()],
                environment: vec![("GREETING".into(), Some("it's \"$x\"\n".into())), ("TERM".into(), None)],
                directory: None,
                is_of_another_user: false,
            };
            let script = Script {
                title: "goes back from `web` at revision 3".to_owned(),
                folder: self.0.path(),
                lock: &self.at("lock"),
                reserve: self.at("reserve"),
                kill: vec!["touch".into(), self.at("killed").into()],
                search_path: "/usr/bin:/bin".into(),
                home: None,
                profile: Some(ProfileMove {
                    profile: self.at("system"),
                    generation: Some("system-1-link".into()),
                    target: Self::old(),
                }),
                programs: vec![program],
                after_start: Duration::ZERO,
                then: vec!["touch".into(), self.at("then").into()],
            };
            std::fs::write(self.at("script"), script.render()).unwrap();
            #[expect(clippy::disallowed_methods, reason = "the script runs as systemd runs it")]
            let run = Command::new("/bin/sh").arg(self.at("script")).arg(argument).env_clear().output();
            run.unwrap()
        }

        fn taken(&self) -> Option<String> {
            std::fs::read_to_string(self.at("taken")).ok()
        }

        fn profile(&self) -> String {
            let generation = std::fs::read_link(self.at("system")).unwrap();
            std::fs::read_link(self.at("x").with_file_name(generation)).unwrap().to_str().unwrap().to_owned()
        }
    }

    #[test]
    fn it_moves_the_profile_and_activates_what_ran_before() {
        let bench = Bench::new();
        let log = bench.at("log");
        std::fs::write(bench.at("reserve"), "room").unwrap();
        let run = bench.run("t-1", "t-1\nweb 3\n", &format!("printf %s \"$GREETING\" >{0}; pwd >>{0}", log.display()));
        assert!(run.status.success(), "{run:?}");
        assert_eq!(bench.profile(), Bench::old().to_string());
        assert_eq!(std::fs::read_to_string(log).unwrap(), "it's \"$x\"\n/\n");
        assert_eq!(bench.taken().as_deref(), Some("t-1\n0\n"));
        assert!(!bench.at("armed").exists() && bench.at("then").exists());
        assert!(!bench.at("killed").exists() && !bench.at("reserve").exists());
    }

    #[test]
    fn it_does_nothing_for_a_word_that_is_not_armed() {
        let bench = Bench::new();
        for (argument, armed) in [("t-1", "t-2\n"), ("", "t-1\n"), ("boot", "")] {
            let run = bench.run(argument, armed, "exit 3");
            assert!(run.status.success(), "{run:?}");
            assert_eq!((bench.taken(), bench.profile().ends_with("-new")), (None, true), "{argument} {armed}");
        }
        let run = bench.run("boot", "t-1\n", "exit 0");
        assert!(run.status.success() && bench.taken().is_some(), "{run:?}");
    }

    #[test]
    fn a_generation_that_was_deleted_is_made_anew() {
        let bench = Bench::new();
        std::fs::remove_file(bench.at("system-1-link")).unwrap();
        symlink("/nowhere", bench.at("system-1-link")).unwrap();
        assert!(bench.run("t", "t\n", "true").status.success());
        assert_eq!(bench.profile(), Bench::old().to_string());
        assert_eq!(std::fs::read_link(bench.at("system")).unwrap(), Path::new("system-3-link"));
    }

    #[test]
    fn an_activation_that_does_not_end_is_killed() {
        let bench = Bench::new();
        let held = std::fs::File::create(bench.at("lock")).unwrap();
        held.try_lock().unwrap();
        let begun = std::time::Instant::now();
        let release = std::thread::spawn({
            let killed = bench.at("killed");
            move || {
                while !killed.exists() {
                    std::thread::sleep(Duration::from_millis(20));
                }
                drop(held);
            }
        });
        assert!(bench.run("t", "t\n", "true").status.success());
        release.join().unwrap();
        assert!(begun.elapsed() >= Duration::from_secs(PAUSE.into()));
        assert_eq!(bench.taken().as_deref(), Some("t\n0\n"));
    }

    #[test]
    fn folders_are_looked_in_once() {
        let folders = ["/a", "/b", "/a", "/c:d"].map(PathBuf::from);
        assert_eq!(search_path(folders.into_iter()), "/a:/b");
    }
}
