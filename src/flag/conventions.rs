//! PURE. How the framework of a service reads paths, as `paths:` of the service declares it.
//!
//! The question it answers: "which spellings of a path are the same to this service?" Spellings that are declared the
//! same are matched and decided like the template itself. Without a declaration, a spelling with path parameters
//! (`;v=1`) is refused where it may concern a route with a workflow (`resolve`), and other spellings are other paths;
//! `check` warns of these.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::path::UnusualParts;

/// Whether a service treats two spellings of a path as the same path.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum SpellingRule {
    /// They are the same path.
    Same,
    /// They are different paths.
    Different,
}

/// What a service does with the parameters or the suffix of a segment before it looks for the route.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum ExtraPart {
    /// It ignores them.
    Strip,
    /// It treats them as a part of the segment.
    Keep,
}

/// What is done with a path that leads to a route with a workflow only if it is decoded a second time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum DoubleEncoding {
    /// The request gets 400.
    Refuse,
    /// The request is forwarded: the service decodes only once.
    Allow,
}

/// How a service reads paths. `None` means that the flag files do not say.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct PathConventions {
    /// Whether `/orders/` is the same as `/orders`.
    pub trailing_slash: Option<SpellingRule>,
    /// Whether `/ORDERS` is the same as `/orders`. Does not concern the values of `{id}` and the like in the template.
    pub case: Option<SpellingRule>,
    /// What is done with `;v=1` at the end of a segment.
    pub parameters: Option<ExtraPart>,
    /// What is done with `.json` and the like at the end of the last segment.
    pub suffix: Option<ExtraPart>,
    /// What is done with a path that is encoded twice, such as `%256F` for `o`.
    pub decode_twice: Option<DoubleEncoding>,
    /// Whether every unusual spelling of the path of a route is refused.
    pub strict: bool,
}

/// The conventions of a framework with its default settings.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Framework {
    /// Servlets without another framework. The container drops path parameters (RFC 3986 3.3; `;jsessionid`) before it
    /// maps a path (Servlet 6.0, 3.5 and 12.1), and maps it exactly, with case and slash. It refuses `%2F` and
    /// backslashes (Tomcat's `encodedSolidusHandling` and `allowBackslash`).
    Tomcat,
    /// Spring MVC in a servlet container. Until version 6 `useTrailingSlashMatch` was on; until 5.3
    /// `useSuffixPatternMatch` too, outside Spring Boot. Path parameters are removed (`removeSemicolonContent`).
    Spring,
    /// Express: by default, the router is neither `caseSensitive` nor `strict` (about the slash at the end). It does
    /// not know path parameters.
    Express,
    /// Rails: the router drops a slash at the end (`Journey::Router::Utils.normalize_path`), and each resource has an
    /// optional `(.:format)`. It distinguishes case.
    Rails,
    /// ASP.NET and ASP.NET Core on IIS: routes are compared without case (`OrdinalIgnoreCase`), and a slash at the end
    /// is ignored. IIS refuses double encodings (`allowDoubleEscaping`).
    Iis,
    /// No framework: every unusual spelling is refused.
    Strict,
}

impl PathConventions {
    /// The defaults of a framework.
    pub fn of(framework: Framework) -> Self {
        use ExtraPart::{Keep, Strip};
        use SpellingRule::{Different, Same};
        let (trailing_slash, case, parameters, suffix, strict) = match framework {
            Framework::Tomcat => (Different, Different, Strip, Keep, false),
            Framework::Spring => (Same, Different, Strip, Strip, false),
            Framework::Express => (Same, Same, Keep, Keep, false),
            Framework::Rails => (Same, Different, Keep, Strip, false),
            Framework::Iis => (Same, Same, Keep, Keep, false),
            Framework::Strict => return Self { strict: true, ..Self::default() },
        };
        Self {
            trailing_slash: Some(trailing_slash),
            case: Some(case),
            parameters: Some(parameters),
            suffix: Some(suffix),
            decode_twice: Some(DoubleEncoding::Refuse),
            strict,
        }
    }

    /// Whether a slash at the end makes no difference.
    pub(super) fn ignores_trailing_slash(&self) -> bool {
        self.trailing_slash == Some(SpellingRule::Same)
    }
    /// Whether case makes no difference.
    pub(super) fn ignores_case(&self) -> bool {
        self.case == Some(SpellingRule::Same)
    }
    /// Whether parameters make no difference.
    pub(super) fn strips_parameters(&self) -> bool {
        self.parameters == Some(ExtraPart::Strip)
    }
    /// Whether a suffix makes no difference.
    pub(super) fn strips_suffix(&self) -> bool {
        self.suffix == Some(ExtraPart::Strip)
    }
    /// Whether only one spelling of a template matches it, apart from encodings.
    pub(super) fn is_exact(&self) -> bool {
        !self.ignores_trailing_slash() && !self.ignores_case() && !self.strips_parameters() && !self.strips_suffix()
    }
    /// The kinds of unusual spelling for which the files declare how the service reads them. Parameters are not among
    /// them if this path would have two slashes in a row without its parameters (`/a/;v=1/b`).
    pub(super) fn declared_spellings(&self, path: &str) -> UnusualParts {
        let mut declared = UnusualParts::default();
        // No key declares how two slashes in a row are read.
        let leaves_slashes = || self.strips_parameters() && path.contains("/;");
        if self.parameters.is_some() && !leaves_slashes() {
            declared = declared.and(UnusualParts::PARAMETERS);
        }
        if self.decode_twice == Some(DoubleEncoding::Allow) {
            declared = declared.and(UnusualParts::DOUBLE);
        }
        declared
    }
    /// The conventions by which a route of this service matches. A strict route matches only its canonical spelling.
    pub fn of_route(&self, is_strict: bool) -> Self {
        match is_strict {
            true => Self { strict: true, ..Self::default() },
            false => Self { strict: false, ..*self },
        }
    }
    /// Whether the files declare nothing.
    pub fn is_default(&self) -> bool {
        *self == Self::default()
    }
    /// Whether a route matches the same paths by both conventions.
    pub fn match_alike(&self, other: &Self) -> bool {
        self.strict == other.strict && self.match_all_of(other) && other.match_all_of(self)
    }
    /// Whether, by these conventions, a route matches or refuses every path that it matches by `other`.
    pub fn match_all_of(&self, other: &Self) -> bool {
        self.strict
            || [
                (self.ignores_trailing_slash(), other.ignores_trailing_slash()),
                (self.ignores_case(), other.ignores_case()),
                (self.strips_parameters(), other.strips_parameters()),
                (self.strips_suffix(), other.strips_suffix()),
            ]
            .into_iter()
            .all(|(own, others)| own || !others)
    }
    /// Conventions that treat as the same what either of two services treats as the same.
    pub(super) fn or(&self, other: &Self) -> Self {
        let same = |is_same: bool| is_same.then_some(SpellingRule::Same);
        let stripped = |is_stripped: bool| is_stripped.then_some(ExtraPart::Strip);
        Self {
            trailing_slash: same(self.ignores_trailing_slash() || other.ignores_trailing_slash()),
            case: same(self.ignores_case() || other.ignores_case()),
            parameters: stripped(self.strips_parameters() || other.strips_parameters()),
            suffix: stripped(self.strips_suffix() || other.strips_suffix()),
            decode_twice: None,
            strict: false,
        }
    }
    /// The names of the differences that the service ignores.
    pub(super) fn same_spellings(&self) -> Vec<&'static str> {
        let all = [
            (self.ignores_trailing_slash(), "trailing_slash"),
            (self.ignores_case(), "case"),
            (self.strips_parameters(), "parameters"),
            (self.strips_suffix(), "suffix"),
        ];
        all.into_iter().filter(|(is_same, _)| *is_same).map(|(_, name)| name).collect()
    }
    /// Conventions by which a strict route finds the spellings that some server could take for its path.
    pub(super) fn loosest() -> Self {
        Self {
            trailing_slash: Some(SpellingRule::Same),
            case: Some(SpellingRule::Same),
            parameters: Some(ExtraPart::Strip),
            suffix: Some(ExtraPart::Strip),
            decode_twice: None,
            strict: false,
        }
    }
}
