//! Places the steps of a graph in layers (Sugiyama, Tagawa and Toda, 1981): every edge leads downwards.
//!
//! Always true: no two boxes overlap. An edge over several layers has a point in each layer between, where no box is.
//! Only an edge that would bring the points of all edges above [`BENDS_MAX`] is straight, and may pass through boxes.

use rust_sugiyama::configure::{Config, RankingType};
use rust_sugiyama::from_vertices_and_edges;

/// The size of a step's box, unless its height has to be another one.
pub(in crate::page) const BOX: Size = Size { width: 232.0, height: 68.0 };
/// The least distance between two boxes.
const GAP: f64 = 36.0;
/// The width of the gap that an edge gets between the boxes of a layer that it passes.
const PASSAGE: f64 = 12.0;
/// The most points that all edges together have between their ends: the time for the layout grows with them.
const BENDS_MAX: usize = 1_500;
/// Parts of the graph without an edge between them stand beside each other up to this width.
const ROW_WIDTH: f64 = 1_600.0;

/// A width and a height, in pixels.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(in crate::page) struct Size {
    pub width: f64,
    pub height: f64,
}

/// A point, in pixels from the upper left corner.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(in crate::page) struct Point {
    pub x: f64,
    pub y: f64,
}

/// Where the boxes and edges are.
#[derive(Clone, Debug, PartialEq)]
pub(in crate::page) struct Layout {
    /// The upper left corner of each box.
    pub boxes: Vec<Point>,
    /// For each edge its points, from the lower side of the earlier box to the upper side of the later one. Empty for
    /// an edge that is part of a cycle, or whose end is no box: a checked plan has none.
    pub edges: Vec<Vec<Point>>,
    /// The size of all.
    pub size: Size,
}

/// Places `boxes` boxes of the same size; an edge is the number of the earlier box and that of the later one.
pub(in crate::page) fn lay_out(boxes: usize, edges: &[(usize, usize)], size: Size) -> Layout {
    let ranks = ranks(boxes, edges);
    let is_downwards = |&(from, to): &(usize, usize)| match (ranks.get(from), ranks.get(to)) {
        (Some(Some(from)), Some(Some(to))) => from < to,
        _ => false,
    };
    // The vertices are the boxes, then the points of edges between their ends.
    let mut vertices = boxes;
    let mut links = Vec::with_capacity(edges.len());
    let mut bends = vec![0..0; edges.len()];
    for (edge, ends) in edges.iter().enumerate().filter(|(_, ends)| is_downwards(ends)) {
        let (from, to) = *ends;
        let between = ranks[to].unwrap_or(0) - ranks[from].unwrap_or(0) - 1;
        let between = if vertices - boxes + between > BENDS_MAX { 0 } else { between };
        bends[edge] = vertices..vertices + between;
        vertices += between;
        // An edge that lacks some of its points is not given to the library, which would add them, above the bound.
        // Each box stays in its layer even so: an edge from the layer directly above needs no points.
        if bends[edge].len() + 1 == ranks[to].unwrap_or(0) - ranks[from].unwrap_or(0) {
            let path = [from].into_iter().chain(bends[edge].clone());
            let next = bends[edge].clone().chain([to]);
            links.extend(path.zip(next));
        }
    }
    let places = place(boxes, vertices, &links, size);
    let corner = |place: &Point| Point { x: place.x - size.width / 2.0, y: place.y - size.height / 2.0 };
    let routes = edges.iter().zip(&bends).map(|(ends, bends)| {
        if !is_downwards(ends) {
            return Vec::new();
        }
        let (from, to) = (places[ends.0], places[ends.1]);
        let mut route = vec![Point { x: from.x, y: from.y + size.height / 2.0 }];
        route.extend(bends.clone().map(|bend| places[bend]));
        route.push(Point { x: to.x, y: to.y - size.height / 2.0 });
        route
    });
    let far = |axis: fn(&Point) -> f64, half: f64| places.iter().map(|place| axis(place) + half).fold(0.0, f64::max);
    Layout {
        edges: routes.collect(),
        size: Size { width: far(|at| at.x, size.width / 2.0), height: far(|at| at.y, size.height / 2.0) },
        boxes: places[..boxes].iter().map(corner).collect(),
    }
}

/// The layer of each box: one below the lowest of those that it comes after; `None` for a box in or below a cycle.
fn ranks(boxes: usize, edges: &[(usize, usize)]) -> Vec<Option<usize>> {
    let mut later = vec![Vec::new(); boxes];
    let mut open = vec![0_usize; boxes];
    for &(from, to) in edges.iter().filter(|(from, to)| *from < boxes && *to < boxes) {
        later[from].push(to);
        open[to] += 1;
    }
    let mut lowest = vec![0; boxes];
    let mut ranks = vec![None; boxes];
    let mut free: Vec<usize> = (0..boxes).filter(|at| open[*at] == 0).collect();
    while let Some(at) = free.pop() {
        ranks[at] = Some(lowest[at]);
        for &next in &later[at] {
            lowest[next] = lowest[next].max(lowest[at] + 1);
            open[next] -= 1;
            if open[next] == 0 {
                free.push(next);
            }
        }
    }
    ranks
}

/// The centre of each vertex. Parts without an edge between them stand beside each other, in rows.
fn place(boxes: usize, vertices: usize, links: &[(usize, usize)], size: Size) -> Vec<Point> {
    let number = |at: usize| u32::try_from(at).unwrap_or(u32::MAX);
    let width = |at: usize| if at < boxes { size.width } else { PASSAGE };
    // All have the height of a box, so that the layers are at equal distances.
    let sized: Vec<_> = (0..vertices).map(|at| (number(at), (width(at), size.height))).collect();
    let links: Vec<_> = links.iter().map(|&(from, to)| (number(from), number(to))).collect();
    // Swapping neighbours to remove more crossings takes seconds for a thousand boxes.
    let config =
        Config { vertex_spacing: GAP, transpose: vertices <= 200, ranking_type: RankingType::Up, ..Config::default() };
    let mut places = vec![Point { x: 0.0, y: 0.0 }; vertices];
    let (mut left, mut top, mut row_height) = (0.0_f64, 0.0_f64, 0.0_f64);
    for (part, ..) in from_vertices_and_edges(&sized, &links, &config) {
        let bounds = |axis: fn(&(f64, f64)) -> f64, half: &dyn Fn(f64) -> f64| {
            let sides = part.iter().map(|(at, place)| (axis(place), half(width(*at))));
            sides.fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), (centre, half)| {
                (low.min(centre - half), high.max(centre + half))
            })
        };
        let (min_x, max_x) = bounds(|place| place.0, &|width| width / 2.0);
        let (min_y, max_y) = bounds(|place| place.1, &|_| size.height / 2.0);
        if left > 0.0 && left + (max_x - min_x) > ROW_WIDTH {
            (left, top, row_height) = (0.0, top + row_height + GAP, 0.0);
        }
        for (at, (x, y)) in &part {
            places[*at] = Point { x: x - min_x + left, y: y - min_y + top };
        }
        left += max_x - min_x + GAP;
        row_height = row_height.max(max_y - min_y);
    }
    places
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn overlaps(one: Point, other: Point) -> bool {
        (one.x - other.x).abs() < BOX.width && (one.y - other.y).abs() < BOX.height
    }

    fn assert_readable(boxes: usize, edges: &[(usize, usize)]) {
        let layout = lay_out(boxes, edges, BOX);
        assert_eq!((layout.boxes.len(), layout.edges.len()), (boxes, edges.len()));
        for (at, corner) in layout.boxes.iter().enumerate() {
            assert!(
                corner.x >= 0.0 && corner.x + BOX.width <= layout.size.width + 0.01,
                "box {at} is outside: {layout:?}"
            );
            assert!(corner.y >= 0.0 && corner.y + BOX.height <= layout.size.height + 0.01, "box {at} is outside");
            for (other, its) in layout.boxes.iter().enumerate().skip(at + 1) {
                assert!(!overlaps(*corner, *its), "boxes {at} and {other} overlap: {layout:?}");
            }
        }
        for ((from, to), route) in edges.iter().zip(&layout.edges) {
            let (first, last) = (route[0], route[route.len() - 1]);
            assert!((first.y - layout.boxes[*from].y - BOX.height).abs() < 0.01, "the edge begins below its box");
            assert!((last.y - layout.boxes[*to].y).abs() < 0.01, "the edge ends above its box");
            assert!(route.windows(2).all(|pair| pair[0].y < pair[1].y), "the edge leads downwards: {route:?}");
            for bend in &route[1..route.len() - 1] {
                let inside = |corner: &Point| {
                    bend.x > corner.x
                        && bend.x < corner.x + BOX.width
                        && bend.y > corner.y
                        && bend.y < corner.y + BOX.height
                };
                assert!(!layout.boxes.iter().any(inside), "an edge passes through a box: {layout:?}");
            }
        }
    }

    /// Edges from earlier to later boxes, each once.
    fn graphs() -> impl Strategy<Value = (usize, Vec<(usize, usize)>)> {
        (1_usize..25).prop_flat_map(|boxes| {
            let edge = (0..boxes, 0..boxes)
                .prop_filter_map("a loop", |(one, other)| (one != other).then(|| (one.min(other), one.max(other))));
            let edges = prop::collection::btree_set(edge, 0..if boxes > 1 { boxes * 2 } else { 1 });
            (Just(boxes), edges.prop_map(|edges| edges.into_iter().collect()))
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(200))]
        #[test]
        fn boxes_never_overlap_and_edges_lead_downwards_past_boxes((boxes, edges) in graphs()) {
            assert_readable(boxes, &edges);
        }
    }

    #[test]
    fn an_edge_over_several_layers_has_a_point_in_each() {
        let layout = lay_out(4, &[(0, 1), (1, 2), (2, 3), (0, 3)], BOX);
        assert_eq!(layout.edges[3].len(), 4);
        assert_readable(4, &[(0, 1), (1, 2), (2, 3), (0, 3)]);
    }

    /// Each of 200 steps needs all before it: 19,900 edges, all but 199 of them over several layers.
    #[test]
    fn edges_beyond_the_bound_of_their_points_are_straight() {
        let edges: Vec<_> = (0..200).flat_map(|to| (0..to).map(move |from| (from, to))).collect();
        let layout = lay_out(200, &edges, BOX);
        let points: usize = layout.edges.iter().map(|route| route.len() - 2).sum();
        assert!((1..=BENDS_MAX).contains(&points), "{points}");
        let below = |pair: &[Point]| pair[0].y < pair[1].y;
        assert!(layout.boxes.windows(2).all(below), "each box is in a layer of its own");
        assert!(layout.edges.iter().all(|route| route.windows(2).all(below)));
    }

    #[test]
    fn what_is_no_dag_is_placed_without_the_edges_of_its_cycles() {
        let layout = lay_out(3, &[(0, 1), (1, 0), (1, 2), (0, 7)], BOX);
        assert_eq!(layout.boxes.len(), 3);
        assert!(layout.edges.iter().all(Vec::is_empty));
    }

    #[test]
    fn many_steps_without_an_edge_fill_rows() {
        let layout = lay_out(40, &[], BOX);
        assert!(layout.size.width <= ROW_WIDTH, "{:?}", layout.size);
        assert_readable(40, &[]);
    }
}
