//! Commands at work.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use cryptoki_sys::CK_SESSION_HANDLE;
use parking_lot::Mutex;

use crate::command::{Command, HELP, Selector};
use crate::module::Module;
use crate::real::real;
use crate::report;
use crate::slot::Slot;

/// The commands about slots that hold, for slots that come later.
#[derive(Default)]
pub(crate) struct Steering {
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// The last line of the folder's file that was applied.
    line: usize,
    lasting: Vec<Command>,
}

/// Counts of rules that no file has a line for.
static UNCOUNTED: AtomicU64 = AtomicU64::new(0);

impl Steering {
    /// Applies a line of the folder's file, unless it was; a line that is not remembered has the number 0.
    pub(crate) fn apply(&self, line: usize, command: Command, module: &'static Module) -> Result<String, String> {
        let mut state = self.state.lock();
        if line > 0 {
            if line <= state.line {
                return Ok("ok".into());
            }
            state.line = line;
        }
        state.remember(&command);
        drop(state);
        perform(line, command, module)
    }

    /// Applies what holds to a slot that has come, or has another token than before.
    pub(crate) fn apply_to(&self, slot: &Arc<Slot>, module: &Module) {
        slot.reset();
        let lasting = self.state.lock().lasting.clone();
        for command in &lasting {
            if selector(command).is_some_and(|selector| slot.is(selector)) {
                set(command, slot, module);
            }
        }
    }
}

impl State {
    fn remember(&mut self, command: &Command) {
        match command {
            Command::Set(..) | Command::Remove(_) | Command::Return { .. } | Command::Swap(..) => {
                self.lasting.push(command.clone());
            }
            Command::Reset => self.lasting.clear(),
            _ => {}
        }
    }
}

fn selector(command: &Command) -> Option<&Selector> {
    match command {
        Command::Set(slot, _)
        | Command::DropSessions(slot)
        | Command::ForgetLogin(slot)
        | Command::ForgetHandles(slot)
        | Command::Unlock(slot)
        | Command::Remove(slot)
        | Command::Return { slot, .. }
        | Command::Swap(slot, _) => Some(slot),
        _ => None,
    }
}

fn perform(line: usize, command: Command, module: &'static Module) -> Result<String, String> {
    if let Some(selector) = selector(&command) {
        let slots = module.slots.select(selector);
        slots.iter().for_each(|slot| set(&command, slot, module));
        return Ok(format!("ok {}", slots.len()));
    }
    match command {
        Command::Rule(rule) => {
            let matched = if line == 0 { Some(&UNCOUNTED) } else { module.shared.rule(line) };
            module.rules.add(rule, matched.ok_or("too many lines of steering; begin with another folder")?);
        }
        Command::Release => module.rules.release(),
        Command::Clear => module.rules.clear(),
        Command::Reset => {
            module.rules.clear();
            module.slots.number_as_behind();
            module.slots.all().iter().for_each(|slot| slot.reset());
            module.shared.free_devices();
            module.log.switch(false, module.folder())?;
        }
        Command::Log(on) => module.log.switch(on, module.folder())?,
        Command::Finalize => module.end().map_err(|rv| format!("it cannot be finalised: {rv:#x}"))?,
        Command::Renumber { rotate, now } => module.slots.number_anew(rotate, now),
        Command::Report => return Ok(report::report(module).to_string()),
        Command::Help => return Ok(HELP.into()),
        _ => {}
    }
    Ok("ok".into())
}

/// Does to a slot what a command says.
fn set(command: &Command, slot: &Arc<Slot>, module: &Module) {
    use std::sync::atomic::Ordering;
    match command {
        Command::Set(_, setting) => slot.set(setting),
        Command::DropSessions(_) => module.sessions.drop_all(slot, false),
        Command::ForgetLogin(_) => forget_login(slot, module),
        Command::ForgetHandles(_) => slot.forget_handles(),
        Command::Unlock(_) => slot.device.servers.wrong_pins.store(0, Ordering::Relaxed),
        Command::Remove(_) => {
            slot.remove();
            module.sessions.drop_all(slot, true);
            module.slots.events.lock().push_back(Arc::clone(slot));
        }
        Command::Return { anew, .. } => {
            slot.give_back(*anew);
            if !anew {
                module.slots.events.lock().push_back(Arc::clone(slot));
            }
        }
        Command::Swap(_, swap) => {
            let first: CK_SESSION_HANDLE = if swap.at_reconnect { module.sessions.next() } else { 0 };
            slot.swap(swap.clone(), first);
        }
        _ => {}
    }
}

/// Logs out behind the caller's back.
fn forget_login(slot: &Arc<Slot>, module: &Module) {
    let sessions = module.sessions.of(Some(slot));
    let Some(session) = sessions.first() else { return };
    slot.forgotten.store(true, std::sync::atomic::Ordering::Release);
    if let (Some(real), Some(session)) = (module.real(), &session.real) {
        // Nobody may have been logged in.
        let _ = real!(real, C_Logout(session.handle));
    }
    if let Some(token) = &slot.null {
        token.log_out();
    }
}
