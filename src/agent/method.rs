//! The programs that activate a unit: one method for each type, the same as the platform's own tool. No I/O.
//!
//! Running them belongs to `activate`.

use std::ffi::OsString;
use std::path::Path;

use super::account::RunAs;
use crate::model::ActivationMode;

/// How a unit is activated.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Method {
    /// The script of a NixOS, in one of its modes.
    SwitchToConfiguration,
    /// The scripts of a nix-darwin, with the user of the configuration. Older versions activate that user's part separately.
    Darwin(Option<RunAs>),
    /// The script of a home-manager generation.
    HomeManager(RunAs),
    /// The programs of a system-manager.
    SystemManager,
    /// The service of the NixOS container with this name.
    Container(String),
    /// The command of the configuration.
    Command(Vec<String>),
}

/// A program to run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Program {
    pub(super) path: OsString,
    pub(super) arguments: Vec<String>,
    pub(super) run_as: RunAs,
}

/// Why the programs of a method are not known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum MethodError {
    /// The system has a part for a user, and the configuration names none.
    NoUser,
}

/// The word in the second line of nix-darwin's `activate-user` in versions where that script does nothing any more.
const DEPRECATED: &str = "deprecated";

impl Method {
    /// The programs to run, in this order, for the system whose files are in the folder `files`. `second_line` reads the
    /// second line of one of them; `None` where the file does not exist. Only a NixOS has the `mode`.
    pub(super) fn programs(
        &self,
        files: &Path,
        mode: ActivationMode,
        second_line: &dyn Fn(&Path) -> Option<String>,
    ) -> Result<Vec<Program>, MethodError> {
        let own = |path: &str, arguments: &[&str]| Program::new(files.join(path), arguments, RunAs::Agent);
        Ok(match self {
            Self::SwitchToConfiguration => vec![own("bin/switch-to-configuration", &[&mode.to_string()])],
            Self::Darwin(user) => {
                if second_line(&files.join("sw/bin/darwin-rebuild")).is_some() {
                    return Ok(vec![own("sw/bin/darwin-rebuild", &["activate"])]);
                }
                let mut programs = Vec::new();
                if second_line(&files.join("activate-user")).is_some_and(|line| !line.contains(DEPRECATED)) {
                    let run_as = user.clone().ok_or(MethodError::NoUser)?;
                    programs.push(Program { run_as, ..own("activate-user", &[]) });
                }
                programs.push(own("activate", &[]));
                programs
            }
            Self::HomeManager(run_as) => vec![Program { run_as: run_as.clone(), ..own("activate", &[]) }],
            Self::SystemManager => vec![own("bin/register-profile", &[]), own("bin/activate", &[])],
            // A stopped container stays stopped; it uses the new system when it starts.
            Self::Container(name) => {
                let unit = format!("container@{name}.service");
                vec![Program::new("systemctl", &["try-reload-or-restart", &unit], RunAs::Agent)]
            }
            Self::Command(argv) => {
                let (program, arguments) = argv.split_first().map_or(("", &[][..]), |(p, a)| (p.as_str(), a));
                vec![Program { path: program.into(), arguments: arguments.to_vec(), run_as: RunAs::Agent }]
            }
        })
    }
}

impl Program {
    fn new(path: impl Into<OsString>, arguments: &[&str], run_as: RunAs) -> Self {
        Self { path: path.into(), arguments: arguments.iter().map(ToString::to_string).collect(), run_as }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The programs of `method`, where these files exist with these second lines.
    fn describe_programs(method: &Method, files: &[(&str, &str)]) -> Result<Vec<String>, MethodError> {
        let second_line = |path: &Path| {
            let found = files.iter().find(|(name, _)| path == Path::new("/sys").join(name));
            found.map(|(_, line)| (*line).to_owned())
        };
        let programs = method.programs(Path::new("/sys"), ActivationMode::Switch, &second_line)?;
        let describe = |program: Program| {
            let words = [vec![program.path.into_string().unwrap()], program.arguments].concat().join(" ");
            match program.run_as {
                RunAs::Agent => words,
                RunAs::User(user) => format!("{user}: {words}"),
            }
        };
        Ok(programs.into_iter().map(describe).collect())
    }

    #[test]
    fn each_type_is_activated_as_its_own_tool_does_it() {
        let alice = RunAs::User("alice".to_owned());
        for (method, expected) in [
            (Method::SwitchToConfiguration, vec!["/sys/bin/switch-to-configuration switch"]),
            (Method::HomeManager(alice.clone()), vec!["alice: /sys/activate"]),
            (Method::HomeManager(RunAs::Agent), vec!["/sys/activate"]),
            (Method::SystemManager, vec!["/sys/bin/register-profile", "/sys/bin/activate"]),
            (Method::Container("db".to_owned()), vec!["systemctl try-reload-or-restart container@db.service"]),
            (Method::Command(vec!["/bin/a".to_owned(), "b".to_owned()]), vec!["/bin/a b"]),
        ] {
            assert_eq!(describe_programs(&method, &[]).unwrap(), expected);
        }
    }

    #[test]
    fn a_darwin_is_activated_by_the_scripts_that_it_has() {
        let (nobody, alice) = (Method::Darwin(None), Method::Darwin(Some(RunAs::User("alice".to_owned()))));
        let rebuild = [("sw/bin/darwin-rebuild", "set -e"), ("activate-user", "set -e")];
        assert_eq!(describe_programs(&nobody, &rebuild).unwrap(), ["/sys/sw/bin/darwin-rebuild activate"]);
        assert_eq!(describe_programs(&nobody, &[]).unwrap(), ["/sys/activate"]);
        let deprecated = [("activate-user", "# nix-darwin: deprecated")];
        assert_eq!(describe_programs(&alice, &deprecated).unwrap(), ["/sys/activate"]);
        let older = [("activate-user", "set -e")];
        assert_eq!(describe_programs(&alice, &older).unwrap(), ["alice: /sys/activate-user", "/sys/activate"]);
        assert_eq!(describe_programs(&nobody, &older), Err(MethodError::NoUser));
    }
}
