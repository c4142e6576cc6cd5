//! The five rungs and the shares on them.

use std::fmt;
use std::str::FromStr;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A route's flag: one of five rungs, ordered from the bottom.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// Legacy answers; nothing is captured.
    Off,
    /// Legacy answers; the engine rehearses a sampled copy after the reply.
    Shadow,
    /// Legacy answers; the engine runs durably, its shared steps rehearsed.
    Dark,
    /// The engine answers; legacy is the fallback.
    Live,
    /// The engine answers; legacy is never called.
    Only,
}

impl State {
    /// All states, from the bottom to the top.
    pub const ALL: [State; 5] = [State::Off, State::Shadow, State::Dark, State::Live, State::Only];

    /// The name in files, commands and metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            State::Off => "off",
            State::Shadow => "shadow",
            State::Dark => "dark",
            State::Live => "live",
            State::Only => "only",
        }
    }
    /// The rung below; `off` has none.
    pub fn below(self) -> Option<State> {
        match self {
            State::Off => None,
            State::Shadow => Some(State::Off),
            State::Dark => Some(State::Shadow),
            State::Live => Some(State::Dark),
            State::Only => Some(State::Live),
        }
    }
    /// 0 for `off` to 4 for `only`, as in the metric `pointsman_flag_state`.
    pub fn rank(self) -> u8 {
        self as u8
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for State {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        State::ALL
            .into_iter()
            .find(|s| s.as_str() == text)
            .ok_or_else(|| format!("unknown state `{text}`: one of off, shadow, dark, live, only"))
    }
}

/// A share of requests or keys, 0 to 100 % in steps of 0.01 % by construction.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Percent(u16);

impl Percent {
    /// Everybody.
    pub const ALL: Percent = Percent(10_000);
    /// Nobody.
    pub const NONE: Percent = Percent(0);

    /// A share of this many percent; `None` if it is not between 0 and 100.
    pub fn new(percent: f64) -> Option<Self> {
        (percent.is_finite() && (0.0..=100.0).contains(&percent)).then(|| Percent((percent * 100.0).round() as u16))
    }
    /// Like [`Percent::new`], for a number that a person gave.
    ///
    /// # Errors
    /// The number is not between 0 and 100, or would be rounded; the text is a sentence.
    pub fn exact(percent: f64) -> Result<Self, String> {
        let rounded = Self::new(percent).ok_or_else(|| format!("{percent} is not between 0 and 100"))?;
        match (rounded.as_f64() - percent).abs() > 1e-9 {
            true => Err(format!("{percent} is finer than 0.01")),
            false => Ok(rounded),
        }
    }
    /// The share in hundredths of a percent, 0 to 10,000.
    pub fn hundredths(self) -> u16 {
        self.0
    }
    /// The share in percent, 0.0 to 100.0.
    pub fn as_f64(self) -> f64 {
        f64::from(self.0) / 100.0
    }
}

impl fmt::Display for Percent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}%", self.as_f64())
    }
}

impl JsonSchema for Percent {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Percent".into()
    }
    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({ "type": "number", "minimum": 0, "maximum": 100 })
    }
}

impl Serialize for Percent {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_f64(self.as_f64())
    }
}

impl<'de> Deserialize<'de> for Percent {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let percent = f64::deserialize(deserializer)?;
        Percent::new(percent).ok_or_else(|| serde::de::Error::custom(format!("{percent} is not between 0 and 100")))
    }
}

/// The share of each rung. `off` and `only` have none: they apply to everybody.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Shares {
    /// The share of requests (without a `key`) or of keys that are on the rung.
    pub shadow: Percent,
    /// The share of keys that are on the rung.
    pub dark: Percent,
    /// The share of keys that are on the rung.
    pub live: Percent,
}

impl Default for Shares {
    fn default() -> Self {
        Self { shadow: Percent::ALL, dark: Percent::ALL, live: Percent::ALL }
    }
}

impl Shares {
    /// The share of a rung.
    pub fn of(&self, state: State) -> Percent {
        match state {
            State::Off | State::Only => Percent::ALL,
            State::Shadow => self.shadow,
            State::Dark => self.dark,
            State::Live => self.live,
        }
    }
    /// These shares with one rung's share changed; `off` and `only` have none.
    pub fn with(mut self, state: State, percent: Percent) -> Self {
        match state {
            State::Off | State::Only => {}
            State::Shadow => self.shadow = percent,
            State::Dark => self.dark = percent,
            State::Live => self.live = percent,
        }
        self
    }
}

/// The kill switch. The values are ordered: each value stops all that the previous one stops, and more.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Freeze {
    /// The kill switch is off.
    #[default]
    No,
    /// No new engine instances.
    Instances,
    /// No new engine instances, and every private and shared step that has not begun is held.
    Effects,
}

#[cfg(test)]
mod tests {
    use super::Percent;

    #[test]
    fn a_share_that_a_person_gives_is_not_rounded() {
        for percent in [0.0, 0.01, 33.33, 99.99, 100.0] {
            assert_eq!(Percent::exact(percent).map(Percent::as_f64), Ok(percent));
        }
        for (percent, why) in
            [(0.001, "finer than 0.01"), (99.996, "finer than"), (100.001, "between"), (-0.001, "between")]
        {
            assert!(Percent::exact(percent).unwrap_err().contains(why), "{percent}");
        }
    }
}
