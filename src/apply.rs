//! All or nothing: runs steps, and on any failure takes back what was done, newest first.

use std::time::{Duration, Instant};

use crate::{
    error::{Error, Kind, Result},
    interrupt,
    plan::Step,
};

/// Whoever can carry a step out: the kernel, or a test.
pub trait Execute {
    fn execute(&mut self, step: &Step) -> std::result::Result<(), StepError>;
}

/// Why a step was not carried out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StepError {
    /// What it works on is not there (any more). When undoing, that is success.
    Gone(String),
    Refused(Error),
}

impl From<StepError> for Error {
    fn from(error: StepError) -> Error {
        match error {
            StepError::Gone(message) => Error::failed(message),
            StepError::Refused(error) => error,
        }
    }
}

/// Is told of each step that was carried out, and how long it took.
pub type Observer<'a> = &'a mut dyn FnMut(&Step, Duration);

/// The steps done so far.
pub struct Transaction<'a, E: Execute> {
    /// For what changes nothing: looking, probing, waiting.
    pub executor: &'a mut E,
    observe: Observer<'a>,
    done: Vec<Step>,
}

impl<E: Execute> Transaction<'_, E> {
    /// Does one step, to be taken back if a later one fails. Errors: the refusal, or that SIGINT or SIGTERM came
    /// before.
    pub fn run(&mut self, step: &Step) -> Result<()> {
        interrupt::check()?;
        let outcome = timed(self.executor, step, self.observe);
        // What moves in may have come half the way.
        if outcome.is_ok() || matches!(step, Step::AddLink(link) if link.home().is_some()) {
            self.done.push(step.clone());
        }
        Ok(outcome?)
    }

    /// Like `run`, but that the object has gone is fine: somebody has done it already, or made it his own.
    pub fn run_if_there(&mut self, step: &Step) -> Result<()> {
        match timed(self.executor, step, self.observe) {
            Ok(()) => self.done.push(step.clone()),
            Err(StepError::Gone(_)) => {}
            Err(refused) => return Err(refused.into()),
        }
        Ok(())
    }

    /// The same for each in turn, up to the first that fails.
    pub fn run_all<'s>(&mut self, steps: impl IntoIterator<Item = &'s Step>) -> Result<()> {
        steps.into_iter().try_for_each(|step| self.run(step))
    }
}

fn timed<E: Execute>(
    executor: &mut E,
    step: &Step,
    observe: &mut dyn FnMut(&Step, Duration),
) -> std::result::Result<(), StepError> {
    let start = Instant::now();
    executor.execute(step)?;
    observe(step, start.elapsed());
    Ok(())
}

/// Runs `body`. If it fails, all its steps are taken back, and the error tells of both: the cause,
/// and what could not be taken back, as commands for `namespace`.
///
/// A closure and not a list of steps, as some learn half-way what comes next.
pub fn all_or_nothing<E: Execute, T>(
    executor: &mut E,
    observe: Observer<'_>,
    namespace: &str,
    body: impl FnOnce(&mut Transaction<'_, E>) -> Result<T>,
) -> Result<T> {
    let mut transaction = Transaction { executor, observe, done: Vec::new() };
    let cause = match body(&mut transaction) {
        Ok(value) => return Ok(value),
        Err(cause) => cause,
    };
    let Transaction { executor, observe, done } = transaction;
    let inverses: Vec<Step> = done.iter().rev().map(Step::inverse).collect();
    Err(match undo(executor, &inverses, observe, namespace) {
        Ok(()) => Error { message: format!("{}{NOTHING_CHANGED}", cause.message), ..cause },
        Err(left) => failed_and_left(cause, left),
    })
}

const NOTHING_CHANGED: &str = "; nothing was changed";

/// What failed by `cause`, and `left` something.
pub fn failed_and_left(cause: Error, left: Error) -> Error {
    // As far as its own steps tell.
    let why = cause.message.strip_suffix(NOTHING_CHANGED).unwrap_or(&cause.message);
    let leftovers = cause.leftovers.into_iter().chain(left.leftovers).collect();
    Error { kind: Kind::LeftBehind, message: format!("{why}; {}", left.message), leftovers, ..left }
}

/// That something could not be taken back, and the commands that do it by hand, as far as they are known.
pub fn left_behind(error: Error, commands: Vec<String>) -> Error {
    could_not(&[error.message], commands)
}

fn could_not(reasons: &[String], leftovers: Vec<String>) -> Error {
    let hint = if leftovers.is_empty() { "plumb gc" } else { "run the commands listed here, or plumb gc" };
    let message = format!("could not be taken back: {}", reasons.join("; "));
    Error { leftovers, ..Error::new(Kind::LeftBehind, message).hint(hint) }
}

/// Both were tried, whether the first went well or not.
pub fn both(first: Result<()>, second: Result<()>) -> Result<()> {
    match (first, second) {
        (Err(first), Err(second)) => Err(first.join(second)),
        (first, second) => first.and(second),
    }
}

/// Runs steps that take something back. A step that fails does not keep the others from being
/// tried; one whose object is gone has succeeded. What is left is listed as commands.
pub fn undo<E: Execute>(executor: &mut E, steps: &[Step], observe: Observer<'_>, namespace: &str) -> Result<()> {
    let mut reasons = Vec::new();
    let mut leftovers = Vec::new();
    for step in steps {
        match timed(executor, step, observe) {
            Ok(()) | Err(StepError::Gone(_)) => {}
            Err(StepError::Refused(error)) => {
                reasons.push(error.message);
                // Some know what is left of a step.
                match error.leftovers.is_empty() {
                    true => leftovers.push(step.command(namespace)),
                    false => leftovers.extend(error.leftovers),
                }
            }
        }
    }
    if leftovers.is_empty() {
        return Ok(());
    }
    Err(could_not(&reasons, leftovers))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::samples;

    /// Keeps the steps in force; refuses by number.
    #[derive(Default)]
    struct Memory {
        in_force: Vec<Step>,
        calls: usize,
        refuse: Vec<usize>,
        gone: Vec<usize>,
    }

    impl Execute for Memory {
        fn execute(&mut self, step: &Step) -> std::result::Result<(), StepError> {
            let call = self.calls;
            self.calls += 1;
            if self.refuse.contains(&call) {
                return Err(StepError::Refused(Error::conflict(format!("call {call} refused"))));
            }
            match self.in_force.iter().position(|there| there.inverse() == *step) {
                Some(at) => drop(self.in_force.remove(at)),
                None => self.in_force.push(step.clone()),
            }
            if self.gone.contains(&call) { Err(StepError::Gone("gone".into())) } else { Ok(()) }
        }
    }

    fn apply(memory: &mut Memory) -> Result<()> {
        all_or_nothing(memory, &mut |_, _| {}, "N", |tx| tx.run_all(&samples::steps()))
    }

    #[test]
    fn all_steps_stay_when_none_is_refused() {
        let mut memory = Memory::default();
        apply(&mut memory).unwrap();
        assert_eq!(memory.in_force, samples::steps());
    }

    #[test]
    fn whichever_step_is_refused_nothing_stays() {
        for refused in 0..samples::steps().len() {
            let mut memory = Memory { refuse: vec![refused], ..Memory::default() };
            let error = apply(&mut memory).unwrap_err();
            assert_eq!(memory.in_force, [], "refused {refused}");
            assert_eq!(error.kind, Kind::Conflict);
            assert_eq!(error.message, format!("call {refused} refused; nothing was changed"));
        }
    }

    #[test]
    fn a_failure_after_the_last_step_takes_all_back() {
        let mut memory = Memory::default();
        let error = all_or_nothing(&mut memory, &mut |_, _| {}, "N", |tx| {
            tx.run_all(&samples::steps())?;
            Err::<(), _>(Error::failed("the container stopped"))
        });
        assert_eq!(error.unwrap_err().message, "the container stopped; nothing was changed");
        assert_eq!(memory.in_force, []);
    }

    #[test]
    fn what_cannot_be_taken_back_is_listed_and_the_rest_is_taken_back() {
        // Steps 0 to 2 succeed, 3 is refused; calls 4, 5, 6 undo 2, 1, 0, and 5 is refused as well.
        let mut memory = Memory { refuse: vec![3, 5], ..Memory::default() };
        let error = apply(&mut memory).unwrap_err();
        assert_eq!(error.kind, Kind::LeftBehind);
        assert_eq!(error.message, "call 3 refused; could not be taken back: call 5 refused");
        assert_eq!(error.leftovers, [samples::steps()[1].inverse().command("N")]);
        assert_eq!(memory.in_force, [samples::steps()[1].clone()]);
    }

    #[test]
    fn what_is_gone_already_counts_as_taken_back() {
        let mut memory = Memory { refuse: vec![2], gone: vec![3], ..Memory::default() };
        assert_eq!(apply(&mut memory).unwrap_err().kind, Kind::Conflict);
    }
}
