//! How many times each rule made two different values equal. The latest uses can be taken back.

use super::rule_texts::{RuleId, RuleTexts};

/// The rules that were used, in their order; one that was used several times in a row stands once.
#[derive(Debug, Default)]
pub(super) struct RuleUses {
    uses: Vec<(RuleId, u32)>,
}

/// The uses at one moment.
#[derive(Clone, Copy, Debug)]
pub(super) struct UsesSavepoint {
    length: usize,
    /// How many times the last rule was used.
    last: Option<u32>,
}

impl RuleUses {
    pub(super) fn add(&mut self, rule: RuleId) {
        match self.uses.last_mut() {
            Some((last, count)) if *last == rule => *count = count.saturating_add(1),
            Some(_) | None => self.uses.push((rule, 1)),
        }
    }

    pub(super) fn savepoint(&self) -> UsesSavepoint {
        UsesSavepoint { length: self.uses.len(), last: self.uses.last().map(|(_, count)| *count) }
    }

    /// Takes back the uses since the savepoint.
    pub(super) fn roll_back_to(&mut self, savepoint: UsesSavepoint) {
        self.uses.truncate(savepoint.length);
        if let (Some((_, count)), Some(before)) = (self.uses.last_mut(), savepoint.last) {
            *count = before;
        }
    }

    /// The texts of the rules that were used, with the number of uses, in the order of `texts`.
    pub(super) fn counted(&self, texts: &RuleTexts) -> Vec<(String, u32)> {
        if self.uses.is_empty() {
            return Vec::new();
        }
        let mut counts = vec![0u32; texts.len()];
        for (rule, uses) in &self.uses {
            if let Some(count) = counts.get_mut(*rule) {
                *count = count.saturating_add(*uses);
            }
        }
        let used = texts.iter().zip(counts).filter(|(_, count)| *count > 0);
        used.map(|(text, count)| (text.clone(), count)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn uses_since_a_savepoint_are_taken_back() {
        let mut texts = RuleTexts::default();
        ["a", "b", "c"].into_iter().for_each(|text| assert!(texts.register(text.to_owned()) < 3));
        let counted = |uses: &RuleUses| uses.counted(&texts).into_iter().map(|(_, count)| count).collect::<Vec<_>>();
        let mut uses = RuleUses::default();
        let at_first = uses.savepoint();
        [2, 0, 0].into_iter().for_each(|rule| uses.add(rule));
        let before = uses.savepoint();
        [0, 1, 0].into_iter().for_each(|rule| uses.add(rule));
        assert_eq!(uses.counted(&texts), [("a".to_owned(), 4), ("b".to_owned(), 1), ("c".to_owned(), 1)]);
        uses.roll_back_to(before);
        assert_eq!(uses.counted(&texts), [("a".to_owned(), 2), ("c".to_owned(), 1)]);
        uses.add(0);
        assert_eq!(counted(&uses), [3, 1]);
        uses.roll_back_to(at_first);
        assert!(counted(&uses).is_empty());
    }
}
