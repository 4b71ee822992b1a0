//! What `report` answers: one line of JSON.

use serde_json::{Map, Value, json};

use crate::counts::Calls;
use crate::function::ALL;
use crate::module::Module;

/// Slots with their devices and calls in this process, and the calls in all processes.
pub(crate) fn report(module: &Module) -> Value {
    let slots = module.slots.all();
    let slots: Vec<Value> = slots
        .iter()
        .map(|slot| {
            let names = slot.names();
            json!({
                "slot": slot.id(),
                "label": names.label,
                "serial": names.serial,
                "present": slot.is_present(),
                "sessions": slot.open_sessions(),
                "device": slot.device.report(),
                "calls": calls(&slot.calls),
            })
        })
        .collect();
    json!({
        "process": std::process::id(),
        "initialized": module.life() > 0,
        "slots": slots,
        "calls": calls(&module.shared.calls),
    })
}

fn calls(calls: &Calls) -> Value {
    let mut counts = Map::new();
    for function in ALL {
        let count = calls.of(*function);
        if count > 0 {
            counts.insert(function.name().into(), count.into());
        }
    }
    Value::Object(counts)
}
