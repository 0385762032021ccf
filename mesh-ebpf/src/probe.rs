//! Probes between nodes: a question that the kernel of the node that is asked answers, with what its agent last said.
//!
//! A datagram to UDP port [`PORT`] of ten words, the question as long as the answer; numbers are big endian:
//!
//! | bytes | |
//! |---|---|
//! | 0–3 | `msh?` in a question, `msh!` in an answer |
//! | 4–7 | the round, as the question has it |
//! | 8–15 | the sender's secret, as the question has it: nobody can answer who did not see the question |
//! | 16–23 | which boot of the machine; in a question zero, as all that follows |
//! | 24–31 | which start of its agent; 0: it has not joined yet |
//! | 32–35 | how long ago its agent said so, ms |
//! | 36–39 | zero |

use crate::csum;

/// UDP; the agents' messages go there, too.
pub const PORT: u16 = 7304;
/// Bytes.
pub const LEN: usize = 4 * WORDS;
/// As many words, each as it is in the packet.
pub type Words = [u32; WORDS];

const WORDS: usize = 10;
const QUESTION: u32 = u32::from_ne_bytes(*b"msh?");
const ANSWER: u32 = u32::from_ne_bytes(*b"msh!");

/// What an agent says of its node: now and then, as long as it lives.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Standing {
    /// Tells boots of the machine apart; 0: nothing was said yet.
    pub boot: u64,
    /// Which start of the agent; 0: it has not joined yet.
    pub epoch: u64,
    /// When it said so, ns of the monotonic clock.
    pub said: u64,
}

/// A question.
pub fn question(round: u32, secret: u64) -> Words {
    let [high, low] = halves(secret);
    [QUESTION, round.to_be(), high, low, 0, 0, 0, 0, 0, 0]
}

/// The answer to a question, and what the sum of the packet changes by; none: it is no question, or nothing is known.
#[inline(always)]
pub fn answer(words: &Words, standing: &Standing, now: u64) -> Option<(Words, u32)> {
    let [kind, round, high, low, a, b, c, d, e, f] = *words;
    if kind != QUESTION || a | b | c | d | e | f != 0 || standing.boot == 0 {
        return None;
    }
    let age = now.saturating_sub(standing.said) / 1_000_000;
    let age = if age > u32::MAX as u64 { u32::MAX } else { age as u32 };
    let ([boot, boot_low], [epoch, epoch_low]) = (halves(standing.boot), halves(standing.epoch));
    let new = [boot, boot_low, epoch, epoch_low, age.to_be()];
    let diff = csum::add(csum::diff(QUESTION, ANSWER), csum::sum(&new));
    Some(([ANSWER, round, high, low, boot, boot_low, epoch, epoch_low, age.to_be(), 0], diff))
}

/// What an answer says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Answer {
    /// To which round.
    pub round: u32,
    /// Which boot of the machine.
    pub boot: u64,
    /// Which start of its agent; 0: it has not joined yet.
    pub epoch: u64,
    /// How long ago its agent said so, ms.
    pub age: u32,
}

/// Reads an answer to a question with this secret.
pub fn read(words: &Words, secret: u64) -> Option<Answer> {
    let [kind, round, high, low, a, b, c, d, age, _] = *words;
    let is_ours = kind == ANSWER && [high, low] == halves(secret);
    let whole = |high: u32, low: u32| u64::from(u32::from_be(high)) << 32 | u64::from(u32::from_be(low));
    is_ours.then(|| Answer {
        round: u32::from_be(round),
        boot: whole(a, b),
        epoch: whole(c, d),
        age: u32::from_be(age),
    })
}

#[inline(always)]
fn halves(number: u64) -> [u32; 2] {
    [((number >> 32) as u32).to_be(), (number as u32).to_be()]
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const STANDING: Standing = Standing { boot: 0x1122_3344_5566_7788, epoch: 7, said: 5_000_000 };

    #[test]
    fn an_answer_says_what_the_agent_said_and_how_long_ago() {
        let (words, _) = answer(&question(9, 77), &STANDING, 48_000_000).unwrap();
        assert_eq!(read(&words, 77), Some(Answer { round: 9, boot: STANDING.boot, epoch: 7, age: 43 }));
        assert_eq!(read(&words, 78), None, "another's");
        assert_eq!(read(&question(9, 77), 77), None, "no answer");
        assert_eq!(answer(&words, &STANDING, 0), None, "answers are not answered");
        assert_eq!(answer(&question(9, 77), &Standing::default(), 0), None, "nothing was said yet");
    }

    proptest! {
        #[test]
        fn the_checksum_changes_with_the_words(round: u32, secret: u64, boot in 1..u64::MAX, epoch: u64, now: u64) {
            let (asked, standing) = (question(round, secret), Standing { boot, epoch, said: 5 });
            let (answered, diff) = answer(&asked, &standing, now).unwrap();
            let updated = csum::update(!csum::fold(csum::sum(&asked)), diff);
            let full = !csum::fold(csum::sum(&answered));
            // Zero has two forms in ones' complement.
            prop_assert!(updated == full || updated ^ full == 0xffff && (updated == 0 || full == 0));
        }

        #[test]
        fn what_is_no_question_is_not_answered(words: Words) {
            prop_assert_eq!(answer(&words, &STANDING, 9), None);
        }
    }
}
