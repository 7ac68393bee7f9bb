//! A random search that is the same every time: inputs worth keeping are damaged, mixed and filled with words of the
//! grammar. It knows nothing of coverage; the kept inputs bring that.

use std::{
    cell::Cell,
    fmt,
    panic::{self, AssertUnwindSafe},
};

use policy::Rng;

use crate::{corpus, targets::Target};

/// Longest input that is tried, in bytes: longer than every bound that targets set.
const INPUT_BYTES_MAX: usize = 1024;

/// Attempts to make a failing input smaller.
const SHRINK_TRIES_MAX: usize = 2000;

/// An input that a target panics at.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Finding {
    /// The target's name.
    pub target: &'static str,
    /// The input as it was found.
    pub found: Vec<u8>,
    /// A smaller one that fails, too.
    pub smallest: Vec<u8>,
}

/// Runs every kept input.
pub fn replay(target: &Target) -> Result<(), Finding> {
    corpus::inputs(target.kept).into_iter().try_for_each(|input| judge(target, input))
}

/// Runs `count` inputs that follow from `seed`.
pub fn search(target: &Target, seed: u64, count: u64) -> Result<(), Finding> {
    let kept = corpus::inputs(target.kept);
    let mut mutator = Mutator { rng: Rng::new(seed), words: target.words, kept: &kept };
    (0..count).try_for_each(|_| judge(target, mutator.input()))
}

/// Runs `count` inputs that follow from `seed`, each some words one behind the other, now and then with a byte changed: where a
/// word is a step of a story, this tells whole ones.
pub fn tell(target: &Target, seed: u64, count: u64) -> Result<(), Finding> {
    let mut mutator = Mutator { rng: Rng::new(seed), words: target.words, kept: &[] };
    (0..count).try_for_each(|_| judge(target, mutator.story()))
}

fn judge(target: &Target, input: Vec<u8>) -> Result<(), Finding> {
    if !fails(target, &input) {
        return Ok(());
    }
    let smallest = quietly(|| shrink(target, input.clone()));
    Err(Finding { target: target.name, found: input, smallest })
}

fn fails(target: &Target, input: &[u8]) -> bool {
    // A target holds nothing that outlives one input.
    panic::catch_unwind(AssertUnwindSafe(|| (target.run)(input))).is_err()
}

/// Takes away run after run, long ones first, as long as it fails.
fn shrink(target: &Target, mut input: Vec<u8>) -> Vec<u8> {
    let mut tries = 0;
    let mut run = input.len().div_ceil(2);
    while run > 0 {
        let mut at = 0;
        while at < input.len() && tries < SHRINK_TRIES_MAX {
            tries += 1;
            let mut smaller = input.clone();
            smaller.drain(at..(at + run).min(input.len()));
            if fails(target, &smaller) {
                input = smaller;
            } else {
                at += run;
            }
        }
        run /= 2;
    }
    input
}

thread_local! {
    static QUIET: Cell<bool> = const { Cell::new(false) };
}

/// Without a line for each panic of this thread.
fn quietly<T>(run: impl FnOnce() -> T) -> T {
    let before = panic::take_hook();
    panic::set_hook(Box::new(move |info| {
        if !QUIET.get() {
            before(info);
        }
    }));
    QUIET.set(true);
    let result = run();
    QUIET.set(false);
    result
}

struct Mutator<'a> {
    rng: Rng,
    words: &'a [&'a str],
    kept: &'a [Vec<u8>],
}

impl Mutator<'_> {
    /// A kept input, changed in one to eight ways.
    fn input(&mut self) -> Vec<u8> {
        let mut input = self.any_kept();
        for _ in 0..=self.rng.below(8) {
            self.change(&mut input);
        }
        input.truncate(INPUT_BYTES_MAX);
        input
    }

    /// One to twelve words behind a byte, and in half of them a byte changed.
    fn story(&mut self) -> Vec<u8> {
        let mut story = vec![self.rng.next_u64() as u8];
        for _ in 0..=self.rng.below(12) {
            story.extend(self.word());
        }
        if self.rng.below(2) == 0 {
            let at = self.place(story.len());
            story[at] = self.rng.next_u64() as u8;
        }
        story.truncate(INPUT_BYTES_MAX);
        story
    }

    fn change(&mut self, input: &mut Vec<u8>) {
        let at = self.place(input.len() + 1);
        let end = at + self.place((input.len() - at).min(32) + 1);
        match self.rng.below(9) {
            0 => drop(input.drain(at..end)),
            1 => {
                let run = input[at..end].to_vec();
                let to = self.place(input.len() + 1);
                input.splice(to..to, run);
            }
            2 => {
                let other = self.any_kept();
                let from = self.place(other.len() + 1);
                let count = self.place(other.len() - from + 1);
                input.splice(at..end, other[from..from + count].iter().copied());
            }
            3 => {
                let other = self.any_kept();
                let from = self.place(other.len() + 1);
                input.splice(at.., other[from..].iter().copied());
            }
            4 if at < input.len() => input[at] ^= 1 << self.rng.below(8),
            5 if at < input.len() => input[at] = self.rng.next_u64() as u8,
            6 => input.insert(at, self.rng.next_u64() as u8),
            7 => drop(input.splice(at..end, self.word())),
            _ => drop(input.splice(at..at, self.word())),
        }
    }

    /// A number below `bound`, which is not 0.
    fn place(&mut self, bound: usize) -> usize {
        self.rng.below(bound as u64) as usize
    }

    fn any_kept(&mut self) -> Vec<u8> {
        let at = self.place(self.kept.len().max(1));
        self.kept.get(at).cloned().unwrap_or_default()
    }

    fn word(&mut self) -> Vec<u8> {
        let at = self.place(self.words.len().max(1));
        // Each character is one byte.
        self.words.get(at).map(|word| word.chars().map(|c| c as u8).collect()).unwrap_or_default()
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} fails at\n  {}\nfound as\n  {}",
            self.target,
            self.smallest.escape_ascii(),
            self.found.escape_ascii()
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PICKY: Target = Target {
        name: "picky",
        run: |bytes| assert!(!bytes.windows(4).any(|run| run == b"word"), "the word"),
        words: &["word"],
        kept: "a\nb\nlonger than the others\n",
        smoke: 0,
    };

    #[test]
    fn a_fault_that_a_word_reaches_is_found_and_made_small_and_found_again() {
        let found = search(&PICKY, 1, 10_000).unwrap_err();
        assert_eq!(found.smallest, b"word");
        assert_eq!(search(&PICKY, 1, 10_000), Err(found));
    }

    #[test]
    fn a_story_of_two_words_is_told() {
        let target = Target {
            run: |bytes| assert!(!bytes.windows(4).any(|run| run == b"bond"), "both"),
            words: &["bo", "nd"],
            ..PICKY
        };
        assert_eq!(tell(&target, 1, 1000).unwrap_err().smallest, b"bond");
    }

    #[test]
    fn a_kept_input_that_fails_is_found() {
        let target = Target { kept: "good\nsome words\n", ..PICKY };
        assert_eq!(replay(&target).unwrap_err().found, b"some words");
        assert_eq!(replay(&PICKY), Ok(()));
    }
}
