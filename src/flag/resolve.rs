//! PURE. The route of a request, and the path that is forwarded.
//!
//! The question it answers: "which flag decides this request, and could the forwarded path lead legacy elsewhere?"
//! Always true: a path that concerns no route with a workflow is forwarded byte for byte; a path that matches such a
//! route, by the conventions of its service, is forwarded with its dot segments resolved and in the spelling of the
//! template, except for parameters and suffixes, which the service may read; and no path is forwarded in which some
//! server could find such a route other than the one whose flag decided. The state of a route with a workflow does not
//! matter, because pins and retry keys are honoured in `off` too; a route that had a workflow by earlier files counts
//! for as long as retries of its requests may come.

use std::borrow::Cow;
use std::sync::Arc;

use http::Method;

use super::canonical::is_canonical;
use super::path::{DotsResolved, PathRefusal, UnusualParts, resolve_dots, resolve_dots_with_parameters, unusual};
use super::readings::TooManyReadings;
use super::route_groups::{PathForms, RouteHit};
use super::set::FoundRoute;
use super::{FlagSet, Instance, RouteFlag};

/// A request's path and route.
pub struct ResolvedPath<'set, 'raw> {
    /// The path to forward; borrowed if it is the received path.
    pub path: Cow<'raw, str>,
    /// The path that was matched, if the path to forward is spelled in another way.
    pub respelled_from: Option<String>,
    /// The request's route; `None` means that the default legacy gets the request.
    pub found: Option<FoundRoute<'set>>,
    /// The route that the request belonged to by earlier files (its former route), if that had a workflow and the
    /// present one has none. Nearly always `None`.
    pub former: Option<FoundRoute<'set>>,
}

impl<'set> ResolvedPath<'set, '_> {
    /// The flag that decides the request; `None` if the request goes to legacy whatever the flags say.
    fn deciding(&self) -> Option<&'set Arc<RouteFlag>> {
        let own = self.found.as_ref().map(|found| found.flag).filter(|flag| flag.route.workflow.is_some());
        own.or_else(|| self.former.as_ref().map(|former| former.flag))
    }
    /// Whether the request belongs to a route that has a workflow, or that had one by earlier files.
    pub fn concerns_workflow(&self) -> bool {
        self.deciding().is_some()
    }
}

impl FlagSet {
    /// Resolves a raw path (without query).
    ///
    /// A path that matches a route with strict paths is refused unless it is in the canonical spelling. Any other path
    /// is refused if a server may find a route with strict paths in it (in a plain path: one that is more specific than
    /// the route that the path matches). An unusual path is also refused if a server may find a route with a workflow
    /// in it, unless the path as written matches that route. Even then it is refused:
    ///
    /// - if it has a NUL, CR or LF, or an incomplete `%XX`, or goes above the root,
    /// - if the route follows up instances, because a server may find another instance id,
    /// - if the route can be above `off` and slashes may shift its parameters.
    ///
    /// # Errors
    /// Why the request is answered with 400.
    pub fn resolve<'raw>(
        &self,
        method: &Method,
        host: Option<&str>,
        raw: &'raw str,
        now_s: impl Fn() -> i64,
    ) -> Result<ResolvedPath<'_, 'raw>, PathRefusal> {
        // `OPTIONS *` concerns the server, not a path.
        if raw == "*" && method == Method::OPTIONS {
            return Ok(ResolvedPath { path: Cow::Borrowed(raw), respelled_from: None, found: None, former: None });
        }
        let unusual = unusual(raw);
        if unusual.is_plain() {
            let resolved = self.matched(method, host, PathForms::plain(raw), &now_s);
            let found = resolved.found.as_ref().map(|found| &found.flag.route);
            if found.is_some_and(|route| route.strict_paths && !is_canonical(raw, &route.matches.path)) {
                return Err(PathRefusal::Strict);
            }
            let found = found.map(|route| &route.matches);
            if self.groups.could_be_taken_for_strict(method, host, raw, found) {
                return Err(PathRefusal::Strict);
            }
            return Ok(resolved);
        }
        self.resolve_unusual(method, host, raw, unusual, &now_s)
    }

    /// The routes with a workflow that have this path under any method.
    pub fn routes_of_path(&self, host: Option<&str>, raw: &str) -> Vec<&Arc<RouteFlag>> {
        let DotsResolved { path, .. } = resolve_dots(raw);
        let of_method = |method| {
            let found = self.find(method, host, &path)?;
            found.flag.route.workflow.is_some().then_some(found.flag)
        };
        self.groups.methods().into_iter().filter_map(of_method).collect()
    }

    /// The route of a path without dot segments, and the path to forward, which is respelled for a route with a
    /// workflow.
    fn matched<'p>(
        &self,
        method: &Method,
        host: Option<&str>,
        path: PathForms<'p>,
        now_s: &impl Fn() -> i64,
    ) -> ResolvedPath<'_, 'p> {
        let hit = self.groups.find(method, host, path);
        let has_workflow = |hit: &RouteHit<'_, '_>| self.routes[hit.index].route.workflow.is_some();
        match hit {
            Some(hit) if has_workflow(&hit) => {
                let path = hit.respelled();
                let respelled_from = matches!(path, Cow::Owned(_)).then(|| hit.path().to_owned());
                ResolvedPath { path, respelled_from, found: self.found(hit), former: None }
            }
            hit => {
                let former = self.former_route(method, host, path.resolved, now_s);
                // Nothing reads the parameters unless a route with a workflow, now or by earlier files, is concerned.
                let found = hit.and_then(|hit| match former {
                    Some(_) => self.found(hit),
                    None => self.routes.get(hit.index).map(|flag| FoundRoute { flag, params: Vec::new() }),
                });
                ResolvedPath { path: Cow::Borrowed(path.resolved), respelled_from: None, found, former }
            }
        }
    }

    fn resolve_unusual<'raw>(
        &self,
        method: &Method,
        host: Option<&str>,
        raw: &'raw str,
        unusual: UnusualParts,
        now_s: &impl Fn() -> i64,
    ) -> Result<ResolvedPath<'_, 'raw>, PathRefusal> {
        if unusual.has(UnusualParts::NOT_ABSOLUTE) {
            return Err(PathRefusal::NotAbsolute);
        }
        // Without dot segments nothing has to be resolved.
        let DotsResolved { path: dotless, above_root } = match unusual.has(UnusualParts::DOTS) {
            true => resolve_dots(raw),
            false => DotsResolved { path: Cow::Borrowed(raw), above_root: false },
        };
        let with_parameters = (unusual.has(UnusualParts::PARAMETERS) && self.groups.strip_parameters())
            .then(|| resolve_dots_with_parameters(raw));
        let forms = PathForms {
            resolved: &dotless,
            resolved_with_parameters: with_parameters.as_ref().map_or(&*dotless, |dotless| &dotless.path),
        };
        let above_root = above_root || with_parameters.as_ref().is_some_and(|dotless| dotless.above_root);
        let matched = self.matched(method, host, forms, now_s);
        let own = matched.deciding();
        let is_strict = matched.found.as_ref().is_some_and(|found| found.flag.route.strict_paths);
        let (path, unusual) = match own {
            _ if is_strict => return Err(PathRefusal::Strict),
            None => (Cow::Borrowed(raw), unusual),
            Some(_) if unusual.has(UnusualParts::CONTROL) => return Err(PathRefusal::Control),
            Some(_) if unusual.has(UnusualParts::PERCENT) => return Err(PathRefusal::Percent),
            Some(_) if above_root => return Err(PathRefusal::AboveRoot),
            Some(_) if *matched.path == *raw => (Cow::Borrowed(raw), unusual),
            Some(_) => {
                let path = (*matched.path).to_owned();
                let still_unusual = super::path::unusual(&path);
                (Cow::Owned(path), still_unusual)
            }
        };
        let resolved = ResolvedPath { path, ..matched };
        self.check_readings(method, host, &resolved, unusual, now_s)?;
        Ok(resolved)
    }

    /// Checks that no server finds another route with a workflow or any strict route in the path to forward, nor other
    /// parameters of the path's own route where they matter.
    fn check_readings(
        &self,
        method: &Method,
        host: Option<&str>,
        resolved: &ResolvedPath<'_, '_>,
        unusual: UnusualParts,
        now_s: &impl Fn() -> i64,
    ) -> Result<(), PathRefusal> {
        let (own, path) = (resolved.deciding(), &*resolved.path);
        let service = resolved.found.as_ref().map_or(&self.default_legacy, |found| &found.flag.route.legacy);
        let declared = service.paths.declared_spellings(path);
        let too_many = |TooManyReadings| PathRefusal::TooManyReadings;
        let found = self.groups.readings(method, host, path, unusual, declared).map_err(too_many)?;
        let former = match &self.former_route_trees {
            Some(trees) if !unusual.without(declared).is_plain() => {
                trees.routes_in(method, host, path, unusual).map_err(too_many)?
            }
            _ => Vec::new(),
        };
        let former = former.into_iter().filter_map(|index| self.former_at(index, now_s));
        for flag in found.into_iter().filter_map(|index| self.routes.get(index)).chain(former) {
            if flag.route.strict_paths {
                return Err(PathRefusal::Strict);
            }
            let is_own = own.is_some_and(|own| Arc::ptr_eq(own, flag));
            let is_follower = matches!(flag.route.instance, Some(Instance::Follows { .. }));
            let may_shift_parameters = flag.can_be_above_off() && unusual.has(UnusualParts::SLASHES);
            if !is_own || is_follower || may_shift_parameters {
                return Err(PathRefusal::Ambiguous);
            }
        }
        Ok(())
    }
}
