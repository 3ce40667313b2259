//! `[hooks]`: the programs that an agent calls before and after an activation. When they are called, and with what, belongs to `agent`.

use serde::Deserialize;

use crate::model::{Argument, Invalid, List};

/// The most words of a hook.
const MAX_WORDS: usize = 64;

/// The hooks of an agent.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Hooks {
    before: Option<HookCommand>,
    after: Option<HookCommand>,
    failure: Option<HookCommand>,
}

/// What a hook is called for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HookStep {
    /// An activation is about to begin.
    Before,
    /// A revision was activated, and has proved itself.
    After,
    /// A revision failed.
    Failure,
}

impl HookStep {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Before, Self::After, Self::Failure];

    /// The key of the configuration, and the value of `CLAVEL_STEP`.
    pub fn word(self) -> &'static str {
        match self {
            Self::Before => "before",
            Self::After => "after",
            Self::Failure => "failure",
        }
    }
}

impl Hooks {
    /// The program of a step; `None` where the configuration names none.
    pub fn command(&self, step: HookStep) -> Option<&HookCommand> {
        match step {
            HookStep::Before => self.before.as_ref(),
            HookStep::After => self.after.as_ref(),
            HookStep::Failure => self.failure.as_ref(),
        }
    }
}

/// A program with its arguments: at most 64 words of at most 4096 bytes.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "List<Argument, MAX_WORDS>")]
pub struct HookCommand(List<Argument, MAX_WORDS>);

impl HookCommand {
    /// The program: an absolute path, or a name to look up on the PATH.
    pub fn program(&self) -> &str {
        self.0.first().map(Argument::as_str).unwrap_or_default()
    }

    /// Its arguments.
    pub fn arguments(&self) -> impl Iterator<Item = &str> {
        self.0.iter().skip(1).map(Argument::as_str)
    }
}

impl TryFrom<List<Argument, MAX_WORDS>> for HookCommand {
    type Error = Invalid;
    fn try_from(words: List<Argument, MAX_WORDS>) -> Result<Self, Invalid> {
        let program = words.first().map(Argument::as_str).unwrap_or_default();
        if program.is_empty() || program.contains('/') && !program.starts_with('/') {
            let why = "it begins with the absolute path of a program, or with a name to look up on the PATH";
            return Err(Invalid::new("a hook", program, why));
        }
        Ok(Self(words))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hook_begins_with_a_path_or_a_name() {
        let read = |text: &str| toml::from_str::<Hooks>(text).map_err(|error| error.to_string());
        let hooks = read("before = [\"/bin/announce\", \"a b\", \"\"]\nfailure = [\"mail\"]").unwrap();
        let before = hooks.command(HookStep::Before).unwrap();
        assert_eq!((before.program(), before.arguments().collect::<Vec<_>>()), ("/bin/announce", vec!["a b", ""]));
        assert_eq!(hooks.command(HookStep::Failure).unwrap().program(), "mail");
        assert_eq!(hooks.command(HookStep::After), None);
        let many = format!("after = [{}]", "\"x\",".repeat(65));
        for (wrong, why) in [
            ("after = []", "begins with the absolute path"),
            ("after = [\"\"]", "begins with the absolute path"),
            ("after = [\"bin/notify\"]", "begins with the absolute path"),
            ("after = [\"./notify\"]", "begins with the absolute path"),
            ("after = \"notify\"", "a list of at most 64 items"),
            ("after = [\"notify\", \"\\u0000\"]", "an argument of a program"),
            (&many, "64 items"),
            ("afterwards = [\"notify\"]", "unknown field `afterwards`"),
        ] {
            let error = read(wrong).unwrap_err();
            assert!(error.contains(why), "{wrong}: {error}");
        }
    }
}
