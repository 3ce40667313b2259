//! Calling the hooks of the configuration. A hook that fails, hangs or is missing is a warning of the pass, and changes nothing else.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::time::Duration;

use super::super::hooks::{HookCall, HookWarning};
use super::super::lifecycle::Lifecycle;
use super::super::state::StateError;
use super::Pass;
use crate::config::HookStep;
use crate::host::find_executable;
use crate::model::{Name, describe_error};
use crate::process::Invocation;

/// How long a hook may take.
const TIME: Duration = Duration::from_secs(30);

impl Pass<'_> {
    /// Records the next state of a deployment, and then calls the hook that this transition is the reason for: an agent that is killed
    /// between the two calls none, and no agent calls one for what has not happened.
    pub(super) async fn record_and_tell(&mut self, name: &Name, next: Lifecycle) -> Result<(), StateError> {
        let before = self.state.deployments.get(name);
        let call = before.and_then(|before| HookCall::of_transition(name, before, &next));
        self.record(name, next)?;
        if let Some(call) = call {
            self.call_hook(&call).await;
        }
        Ok(())
    }

    /// Calls the hook of a step, and waits for its end.
    pub(super) async fn call_hook(&mut self, call: &HookCall) {
        let step = call.step();
        let Some(command) = self.config.hooks.command(step) else { return };
        let program = Path::new(command.program()).file_name().unwrap_or_default().to_string_lossy();
        let run = Invocation::new(command.program())
            .args(command.arguments())
            // An argument may hold a secret, such as the URL of a chat.
            .reported_as(&program)
            .outside_any_repository()
            .stdin(call.text())
            .within(TIME);
        let run = call.environment(&*self.store).into_iter().fold(run, |run, (name, value)| run.env(name, value));
        // A file, and no pipe: a daemon that the hook leaves in a session of its own may hold it open.
        let run = match new_log(&self.directory.join("hooks"), step) {
            Ok(log) => run.writing_to(log),
            // A full disk is a reason to tell somebody.
            Err(_) => run,
        };
        if let Err(error) = run.run().await {
            self.hook_warnings.push(HookWarning::failed(call, &describe_error(&error)));
        }
    }

    /// Notes the hooks that cannot be called at present, where this pass has not found out by calling them.
    pub(super) fn note_unusable_hooks(&mut self) {
        for step in HookStep::ALL {
            let is_told = self.hook_warnings.iter().any(|warning| warning.step == step);
            if let Some(command) = self.config.hooks.command(step).filter(|_| !is_told)
                && let Err(why) = find_executable(command.program())
            {
                self.hook_warnings.push(HookWarning::unusable(step, &why));
            }
        }
    }
}

/// A new file for the output of a hook. What an earlier call left running writes on to the earlier file.
fn new_log(folder: &Path, step: HookStep) -> io::Result<File> {
    fs::create_dir_all(folder)?;
    let path = folder.join(format!("{}.log", step.word()));
    match fs::remove_file(&path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => File::options().read(true).append(true).create(true).mode(0o600).open(path),
    }
}
