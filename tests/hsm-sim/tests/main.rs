//! The simulator, driven as any program drives a PKCS#11 module. Every steering command has a test that fails if it does
//! nothing; what does not depend on the mode is tried in null mode and over SoftHSM2.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test that cannot go on must say so")]

mod faults;
mod hsm;
mod processes;
#[path = "../../it/sim.rs"]
mod sim;
mod states;
mod times;
mod tokens;

use hsm::Hsm;

/// Tries each of these in null mode, on its own.
macro_rules! tried {
    ($($module:ident::$name:ident)*) => {
        $(
            mod $name {
                #[test]
                fn in_null_mode() {
                    super::$module::$name(&super::Hsm::null());
                }
            }
        )*

        /// SoftHSM2 has one state in a process, so these come one after the other.
        #[test]
        fn all_of_them_over_softhsm() {
            let hsm = Hsm::softhsm();
            $(
                eprintln!("{}", stringify!($name));
                $module::$name(&hsm);
                hsm.sim.steer("reset");
                hsm.initialize_anew();
            )*
        }
    };
}

tried! {
    faults::a_call_fails_by_its_number
    faults::every_so_many_calls_fail
    faults::the_first_calls_fail
    faults::calls_fail_until_the_module_is_finalised
    faults::a_fault_is_for_its_slot
    faults::any_function_can_fail
    faults::a_late_failure_has_been_done
    faults::a_failed_signature_ends_its_operation
    faults::a_call_hangs_until_it_is_released
    faults::signatures_are_wrong
    faults::lengths_are_too_long
    faults::rules_are_cleared
    states::dropped_sessions_are_gone_for_good
    states::a_forgotten_login_must_be_done_again
    states::a_module_that_others_finalised_is_initialised_anew
    states::a_removed_token_is_gone_until_it_returns
    states::a_returned_token_may_need_a_new_initialisation
    states::slots_are_renumbered
    states::slots_exchange_their_numbers
    states::a_clock_tells_no_time
    states::sessions_are_limited
    states::idle_sessions_die
    states::handles_are_forgotten
    states::a_handle_names_another_key_at_once
    states::a_handle_names_another_key_after_reconnecting
    states::a_handle_names_another_key_in_use_only
    states::a_slot_event_tells_of_a_removal
    states::reset_undoes_everything
    times::a_signature_takes_its_service_time
    times::a_lognormal_service_time_varies_around_its_mean
    times::a_device_works_for_so_many_at_once
    times::every_call_takes_the_round_trip
    times::a_delay_is_for_its_function
    times::calls_are_logged
    times::calls_are_counted
}
