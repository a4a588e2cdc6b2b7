//! Model test with a Dio and a scripted master: every order of external changes, writes, reads, upstream events and restarts.
//!
//! [`explore`] visits all states of one row breadth first; the property tests walk at random over several rows. Both check
//! after every entry that no confirmed row goes back to an older state, and at rest that readers see the master's rows.

mod checks;
mod world;

use std::collections::{HashSet, VecDeque};
use std::sync::Arc;

use self::world::{Action, Hooks, Route, Setup, World};
use super::*;
use crate::state::reported_row::ReportedRow;
use crate::state::row_versions::{EventVersion, OwnVersion};
use crate::table::TableBuilder;

const SMALL: Setup = Setup {
    keys: 1,
    route: Route::Through { returns: false },
    hooks: Hooks::None,
    early: false,
    echo: false,
    versioned: false,
    clocked: false,
    trust: false,
    deletes: true,
    delete_all: false,
    externals: 2,
    writes: 2,
    refreshes: 2,
    restarts: 0,
    losses: 0,
};

/// Visits every world reachable from `setup` and returns their number.
fn explore(setup: Setup) -> usize {
    let first = World::new(setup);
    let mut known = HashSet::from([first.key()]);
    // The step that led to each world, for the report of a failure.
    let mut steps: Vec<(usize, Option<Action>)> = vec![(0, None)];
    let mut queue = VecDeque::from([(0, first)]);
    while let Some((number, world)) = queue.pop_front() {
        for action in world.actions() {
            let mut next = world.clone();
            let step = std::panic::AssertUnwindSafe(|| next.step(action));
            if let Err(panic) = std::panic::catch_unwind(step) {
                let mut path = vec![action];
                let mut at = number;
                while let (before, Some(action)) = steps[at] {
                    path.push(action);
                    at = before;
                }
                path.reverse();
                eprintln!("{setup:?}\n{path:#?}");
                std::panic::resume_unwind(panic);
            }
            if known.insert(next.key()) {
                steps.push((number, Some(action)));
                queue.push_back((steps.len() - 1, next));
            }
        }
    }
    eprintln!("{} worlds of {setup:?}", known.len());
    known.len()
}

/// Explores each setup; fails if a model has silently become smaller.
fn explore_all(setups: &[(usize, Setup)]) {
    for (least, setup) in setups {
        let found = explore(*setup);
        assert!(found >= *least, "only {found} worlds of {setup:?}");
    }
}

const THROUGH: Route = Route::Through { returns: false };
const RETURNS: Route = Route::Through { returns: true };
const FEEDBACK: Route = Route::Consumer { feedback: true };
const SILENT: Route = Route::Consumer { feedback: false };

#[test]
fn never_back_an_unversioned_master() {
    let one = Setup { externals: 1, writes: 1, refreshes: 1, ..SMALL };
    explore_all(&[
        (1700, Setup { refreshes: 2, deletes: false, ..one }),
        (4500, Setup { writes: 2, deletes: false, ..one }),
        (6800, Setup { externals: 2, ..one }),
        (5500, Setup { restarts: 1, ..one }),
        (5000, Setup { hooks: Hooks::Thin, ..one }),
        (3200, Setup { hooks: Hooks::Full, echo: true, route: RETURNS, deletes: false, ..one }),
    ]);
}

#[test]
fn rest_is_reached_when_payloads_are_trusted() {
    let one = Setup { externals: 1, writes: 1, refreshes: 1, hooks: Hooks::Full, trust: true, ..SMALL };
    explore_all(&[(3200, Setup { externals: 2, refreshes: 0, ..one })]);
}

#[test]
fn never_back_after_a_change_whose_sender_has_its_own_clock() {
    let one = Setup { externals: 3, writes: 0, refreshes: 1, hooks: Hooks::Full, trust: true, clocked: true, ..SMALL };
    let shorter = Setup { externals: 2, refreshes: 0, ..one };
    explore_all(&[(1, one), (1, Setup { writes: 1, ..shorter }), (1, Setup { restarts: 1, ..shorter })]);
}

#[test]
fn never_back_a_versioned_master_with_events_in_any_order() {
    let one = Setup { versioned: true, hooks: Hooks::Full, externals: 2, writes: 1, refreshes: 0, ..SMALL };
    let clocked = Setup { clocked: true, trust: true, ..one };
    let listed = Setup { writes: 0, refreshes: 1, ..clocked };
    explore_all(&[
        (2200, one),
        (1500, Setup { route: RETURNS, ..one }),
        // Deletions have the clock of their sender only, so that nothing tells whether a list is newer.
        (3300, clocked),
        (14_300, Setup { externals: 3, ..listed }),
        (5200, Setup { restarts: 1, ..listed }),
    ]);
}

#[test]
fn an_acknowledged_routed_write_never_goes_back() {
    let one = Setup { externals: 1, writes: 2, refreshes: 1, deletes: false, ..SMALL };
    explore_all(&[
        (5700, Setup { route: Route::Around, restarts: 1, refreshes: 2, ..one }),
        (1800, Setup { route: SILENT, ..one }),
        (600, Setup { route: SILENT, writes: 1, restarts: 1, ..one }),
        (3800, Setup { route: FEEDBACK, writes: 1, hooks: Hooks::Full, ..one }),
    ]);
}

#[test]
fn a_write_that_comes_back_before_its_route_answers_is_settled() {
    let one =
        Setup { route: FEEDBACK, hooks: Hooks::Full, early: true, externals: 0, writes: 1, refreshes: 1, ..SMALL };
    explore_all(&[
        (3000, Setup { versioned: true, writes: 2, ..one }),
        (5100, Setup { versioned: true, externals: 1, ..one }),
        (750, Setup { versioned: true, restarts: 1, ..one }),
        (24_000, Setup { versioned: true, externals: 1, restarts: 1, ..one }),
        (400, Setup { clocked: true, trust: true, ..one }),
        (5000, Setup { writes: 2, deletes: false, ..one }),
        (1100, Setup { hooks: Hooks::None, route: SILENT, externals: 1, ..one }),
    ]);
}

#[test]
#[ignore = "minutes; run after any change of the rules"]
fn all_interleavings_of_two_of_each() {
    let early = Setup { early: true, route: FEEDBACK, hooks: Hooks::Full, refreshes: 1, ..SMALL };
    explore_all(&[
        (1, Setup { versioned: true, externals: 1, deletes: false, ..early }),
        (1, Setup { route: FEEDBACK, hooks: Hooks::Full, externals: 1, refreshes: 1, deletes: false, ..SMALL }),
        (1, Setup { route: SILENT, restarts: 1, deletes: false, ..SMALL }),
        (316_000, Setup { route: THROUGH, restarts: 1, externals: 1, ..SMALL }),
        (233_000, Setup { hooks: Hooks::Thin, refreshes: 1, deletes: false, ..SMALL }),
        (234_000, Setup { hooks: Hooks::Full, echo: true, refreshes: 1, externals: 1, ..SMALL }),
        (99_000, Setup { hooks: Hooks::Full, trust: true, refreshes: 1, writes: 1, ..SMALL }),
        (99_000, Setup { hooks: Hooks::Full, trust: true, clocked: true, refreshes: 1, writes: 1, ..SMALL }),
        (70_000, Setup { versioned: true, hooks: Hooks::Full, refreshes: 1, writes: 1, ..SMALL }),
        (51_000, Setup { route: RETURNS, versioned: true, hooks: Hooks::Full, refreshes: 1, writes: 1, ..SMALL }),
        (29_000, Setup { route: Route::Around, restarts: 1, deletes: false, ..SMALL }),
        (761_000, Setup { route: THROUGH, ..SMALL }),
    ]);
}

/// Walks along `choices`.
fn walk(setup: Setup, choices: &[u16]) -> Result<(), TestCaseError> {
    let mut world = World::new(setup);
    let mut path = Vec::new();
    for choice in choices {
        let actions = world.actions();
        let Some(action) = actions.get(usize::from(*choice) % actions.len().max(1)) else { break };
        path.push(*action);
        let step = std::panic::AssertUnwindSafe(|| world.step(*action));
        prop_assert!(std::panic::catch_unwind(step).is_ok(), "{:?}\n{:?}", setup, path);
    }
    Ok(())
}

fn any_route() -> impl Strategy<Value = Route> {
    prop_oneof![Just(THROUGH), Just(RETURNS), Just(Route::Around), Just(FEEDBACK), Just(SILENT)]
}

fn any_hooks() -> impl Strategy<Value = Hooks> {
    prop_oneof![Just(Hooks::None), Just(Hooks::Thin), Just(Hooks::Full)]
}

const THREE: Setup = Setup { keys: 3, delete_all: true, externals: 5, writes: 6, refreshes: 3, ..SMALL };

proptest! {
    #![proptest_config(ProptestConfig { cases: 120, ..ProptestConfig::default() })]

    #[test]
    fn never_back_random_walks_over_three_rows(
        choices in proptest::collection::vec(any::<u16>(), 60),
        route in any_route(),
        hooks in any_hooks(),
        versioned: bool,
        clocked: bool,
        trust: bool,
        early: bool,
        echo: bool,
    ) {
        walk(Setup { route, hooks, early, echo, versioned, clocked, trust, restarts: 1, ..THREE }, &choices)?;
    }

    #[test]
    fn never_back_random_walks_with_losses_of_the_cache_file(
        choices in proptest::collection::vec(any::<u16>(), 60),
        route in any_route(),
        hooks in any_hooks(),
        trust: bool,
        early: bool,
        echo: bool,
    ) {
        walk(Setup { route, hooks, early, echo, trust, restarts: 1, losses: 2, ..THREE }, &choices)?;
    }
}
