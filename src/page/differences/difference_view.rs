//! What of a route's differences is looked at: the parameters of the page's address.

use serde::Deserialize;

use crate::page::client::segment;
use crate::page::differences::difference_words::{Arms, PairPart};

/// The parameters as they are given.
#[derive(Debug, Default, Deserialize)]
pub(in crate::page) struct Parameters {
    order: Option<String>,
    kind: Option<String>,
    group: Option<String>,
    sample: Option<String>,
    from: Option<String>,
    candidate: Option<String>,
    suggest: Option<String>,
}

/// The order of the groups.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(in crate::page) enum Order {
    #[default]
    Frequent,
    Newest,
}

/// What is looked at. What the address does not say, or says wrongly, is as usual.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(in crate::page) struct View {
    pub order: Order,
    /// Only groups with a difference in this part of the pair.
    pub part: Option<PairPart>,
    /// Only the group with this fingerprint.
    pub group: Option<String>,
    /// Which sample of that group; 0 is the one that the API shows.
    pub sample: usize,
    /// How many groups are passed over.
    pub from: usize,
    /// Of the route's candidate.
    pub candidate: bool,
    /// Whether rules are proposed.
    pub suggests: bool,
}

impl View {
    pub(in crate::page) fn of(given: &Parameters) -> Self {
        let number = |text: &Option<String>| text.as_deref().and_then(|text| text.parse().ok()).unwrap_or_default();
        let is_true = |text: &Option<String>| text.as_deref() == Some("true");
        let named = |part: &PairPart| given.kind.as_deref() == Some(part.name());
        Self {
            order: if given.order.as_deref() == Some("newest") { Order::Newest } else { Order::Frequent },
            part: PairPart::ALL.into_iter().find(named),
            group: given.group.clone().filter(|group| !group.is_empty()),
            sample: number(&given.sample),
            from: number(&given.from),
            candidate: is_true(&given.candidate),
            suggests: is_true(&given.suggest),
        }
    }

    /// The path of the page that shows this of a route.
    pub(in crate::page) fn path(&self, route: &str) -> String {
        let mut parameters = Vec::new();
        if self.order == Order::Newest {
            parameters.push("order=newest".to_owned());
        }
        parameters.extend(self.part.map(|part| format!("kind={}", part.name())));
        parameters.extend(self.group.as_ref().map(|group| format!("group={}", segment(group))));
        parameters.extend((self.sample > 0).then(|| format!("sample={}", self.sample)));
        parameters.extend((self.from > 0).then(|| format!("from={}", self.from)));
        parameters.extend(self.candidate.then(|| "candidate=true".to_owned()));
        parameters.extend(self.suggests.then(|| "suggest=true".to_owned()));
        let mark = if parameters.is_empty() { "" } else { "?" };
        format!("/routes/{}/differences{mark}{}", segment(route), parameters.join("&"))
    }

    /// How the two sides are called.
    pub(in crate::page) fn arms(&self) -> &'static Arms {
        if self.candidate { &Arms::OF_CANDIDATE } else { &Arms::OF_ROUTE }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_view_is_what_its_path_says() {
        let view = View {
            order: Order::Newest,
            part: Some(PairPart::Effect),
            group: Some("a&b=\"c".into()),
            sample: 2,
            from: 20,
            candidate: true,
            suggests: true,
        };
        let path = view.path("orders/create");
        assert!(path.starts_with("/routes/orders%2Fcreate/differences?order=newest&kind=effect&group=a%26b%3D%22c&"));
        assert!(path.ends_with("&sample=2&from=20&candidate=true&suggest=true"), "{path}");
        let given = Parameters {
            order: Some("newest".into()),
            kind: Some("effect".into()),
            group: view.group.clone(),
            sample: Some("2".into()),
            from: Some("20".into()),
            candidate: Some("true".into()),
            suggest: Some("true".into()),
        };
        assert_eq!(View::of(&given), view);
        assert_eq!(View::default().path("orders"), "/routes/orders/differences");
    }

    #[test]
    fn what_cannot_be_read_is_as_usual() {
        let wrong = || Some("<script>".to_owned());
        let given = Parameters {
            order: wrong(),
            kind: wrong(),
            group: Some(String::new()),
            sample: wrong(),
            from: Some("-1".into()),
            candidate: wrong(),
            suggest: None,
        };
        assert_eq!(View::of(&given), View::default());
    }
}
