//! The order of measuring: in turns, so that whatever drifts on the machine hits all ways alike.

use std::{fmt, time::Duration};

use super::Test;

/// One test with so many connections at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Task {
    pub test: Test,
    pub streams: u16,
}

/// "TCP_STREAM, 4 streams"
impl fmt::Display for Task {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.streams {
            1 => write!(f, "{}", self.test),
            streams => write!(f, "{}, {streams} streams", self.test),
        }
    }
}

/// What is measured once in each round.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Turn {
    pub round: u32,
    pub task: Task,
    /// The way's place among those that are measured.
    pub way: usize,
}

/// The numbers of streams that TCP_STREAM is measured with unless others are asked for.
pub const STREAMS: [u16; 5] = [1, 2, 4, 8, 16];

/// Each test with its numbers of streams. Where none are asked for, only TCP_STREAM is measured with
/// several: its throughput is what depends on them most.
pub fn tasks(tests: &[Test], streams: Option<&[u16]>) -> Vec<Task> {
    let of = |test: &Test| match (streams, test) {
        (Some(streams), _) => streams.to_vec(),
        (None, Test::TcpStream) => STREAMS.to_vec(),
        (None, _) => vec![1],
    };
    tests.iter().flat_map(|test| of(test).into_iter().map(|streams| Task { test: *test, streams })).collect()
}

/// All turns: A B C for the first task, A B C for the second, and all of that again in each round.
pub fn turns(rounds: u32, tasks: &[Task], ways: usize) -> Vec<Turn> {
    let of_task = |round, task: &Task| {
        let task = *task;
        (0..ways).map(move |way| Turn { round, task, way })
    };
    (0..rounds).flat_map(|round| tasks.iter().flat_map(move |task| of_task(round, task))).collect()
}

/// The shortest time that says something: at a transaction each 100 µs a thousand of them.
pub const SHORTEST: Duration = Duration::from_millis(100);
/// Beside what is measured a turn takes about so long: to open the sockets, to warm up and to close.
pub const BESIDE: Duration = Duration::from_millis(150);

/// How long each turn measures where nobody says: so long that all take two and a half minutes, but no longer
/// than a second.
pub fn duration(turns: usize) -> Duration {
    const ALL: Duration = Duration::from_secs(150);
    let each = ALL / u32::try_from(turns.max(1)).unwrap_or(u32::MAX);
    each.saturating_sub(BESIDE).clamp(Duration::from_millis(200), Duration::from_secs(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ways_take_turns_within_each_task_and_each_round() {
        let tasks = tasks(&[Test::TcpRr, Test::UdpRr], None);
        let order: Vec<_> =
            turns(2, &tasks, 3).into_iter().map(|turn| (turn.round, turn.task.test, turn.way)).collect();
        let of = |round, test| (0..3).map(move |way| (round, test, way));
        let expected = of(0, Test::TcpRr).chain(of(0, Test::UdpRr)).chain(of(1, Test::TcpRr)).chain(of(1, Test::UdpRr));
        assert_eq!(order, expected.collect::<Vec<_>>());
    }

    #[test]
    fn only_the_stream_is_measured_with_several_unless_asked() {
        let of = |streams: Option<&[u16]>| {
            tasks(&[Test::TcpStream, Test::UdpRr], streams).iter().map(|task| task.streams).collect::<Vec<_>>()
        };
        assert_eq!(of(None), [1, 2, 4, 8, 16, 1]);
        assert_eq!(of(Some(&[1, 3])), [1, 3, 1, 3]);
    }

    #[test]
    fn the_default_run_of_all_ways_takes_less_than_three_minutes() {
        let tests = [Test::TcpStream, Test::UdpStream, Test::TcpRr, Test::TcpCrr, Test::UdpRr];
        for ways in 1..=9 {
            let turns = turns(5, &tasks(&tests, None), ways).len();
            let all = (duration(turns) + BESIDE) * turns as u32;
            assert!(all <= Duration::from_secs(175), "{ways} ways take {all:?}");
        }
    }
}
