// SPDX-License-Identifier: GPL-2.0

//! `models MODEL [RULE]`: tries every interleaving of a model, as it is or without
//! one of its rules, and fails when something is wrong in any. Without a MODEL it
//! says which there are: a model and a rule per line, `Nothing` being as it is.

use std::process::ExitCode;

use models::{fold, log, ring};

type Case = (&'static str, String, Box<dyn Fn() + Send + Sync>);

/// A model with the rules that it can be without.
fn cases<W: Copy + std::fmt::Debug + Send + Sync + 'static>(
    model: &'static str,
    run: fn(W),
    without: &[W],
) -> Vec<Case> {
    let case = |&without: &W| -> Case {
        (
            model,
            format!("{without:?}"),
            Box::new(move || run(without)),
        )
    };
    without.iter().map(case).collect()
}

fn all() -> Vec<Case> {
    let mut all = {
        use fold::Without::{Baseline, Fold, Nothing, OneLock, OneWriter, Removal, ThreadGone};
        let of_totals = [Nothing, OneLock, Removal, ThreadGone, Fold, OneWriter];
        let mut all = cases("totals", fold::totals, &of_totals);
        all.extend(cases("reset", fold::reset, &[Nothing, OneLock, Baseline]));
        all
    };
    {
        use log::Without::*;
        let of_hand_over = [
            Nothing,
            ReleaseOfPublished,
            AcquireOfPublished,
            ReleaseOfTail,
            AcquireOfTail,
            FreeSlot,
            LockInPlace,
            First,
            PublishedInTime,
        ];
        all.extend(cases("hand_over", log::hand_over, &of_hand_over));
        let of_restart = [Nothing, RunOfLog, RunOfLogInPlace, LockOfStart];
        all.extend(cases("restart", log::restart, &of_restart));
    }
    {
        use ring::Without::*;
        let of_mapped = [
            Nothing,
            Lock,
            ReleaseOfHead,
            AcquireOfHead,
            ReleaseOfTail,
            AcquireOfTail,
            Room,
        ];
        all.extend(cases("mapped_ring", ring::mapped, &of_mapped));
        let of_read = [Nothing, OneReader, CopyFirst];
        all.extend(cases("read_ring", ring::read, &of_read));
    }
    all
}

fn main() -> ExitCode {
    let mut words = std::env::args().skip(1);
    let Some(model) = words.next() else {
        for (model, without, _) in all() {
            println!("{model} {without}");
        }
        return ExitCode::SUCCESS;
    };
    let without = words.next().unwrap_or_else(|| "Nothing".to_string());
    let case = all()
        .into_iter()
        .find(|(its, rule, _)| *its == model && *rule == without);
    let Some((_, _, run)) = case else {
        eprintln!(
            "models: there is no model {model} without {without}: run it without either for a list"
        );
        return ExitCode::from(2);
    };
    let mut builder = loom::model::Builder::new();
    // The one that would take minutes.
    if model == "restart" {
        builder.preemption_bound = Some(5);
    }
    builder.check(run);
    ExitCode::SUCCESS
}
