//! The frames in the bytes of an HTTP/2 connection, in one direction.
//!
//! Always true: a frame is reported once, when its last byte has passed, however the bytes are divided; nothing but the
//! frame in progress is kept. Only a frame's header is checked here; all else is left to the h2 crate, which reads the
//! same bytes.

/// The length of a frame's header.
const HEADER_LENGTH: usize = 9;
/// The number of payload bytes that are kept: the code of RST_STREAM is in the first 4 bytes, that of GOAWAY in the
/// next 4.
const LEAD_LENGTH: usize = 8;
/// The flag END_STREAM of DATA and HEADERS.
const END_STREAM: u8 = 0x1;
/// The flag END_HEADERS of HEADERS and CONTINUATION.
const END_HEADERS: u8 = 0x4;

/// The type of a frame, as far as it matters here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum FrameKind {
    Data,
    Headers,
    /// RST_STREAM, with its code.
    Reset(u32),
    /// GOAWAY, with its code.
    GoAway(u32),
    Continuation,
    /// PRIORITY, SETTINGS, PING, WINDOW_UPDATE, and types that this version does not know.
    Control,
}

/// A frame that has passed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Frame {
    pub kind: FrameKind,
    /// The frame's type as a number.
    type_number: u8,
    flags: u8,
    /// 0 if the frame concerns the whole connection.
    pub stream: u32,
    /// The length of the payload.
    pub length: usize,
}

impl Frame {
    pub(super) fn ends_stream(&self) -> bool {
        matches!(self.kind, FrameKind::Data | FrameKind::Headers) && self.flags & END_STREAM != 0
    }
    pub(super) fn ends_head(&self) -> bool {
        matches!(self.kind, FrameKind::Headers | FrameKind::Continuation) && self.flags & END_HEADERS != 0
    }
}

/// The types whose payloads have a length that is checked, by their numbers.
const PRIORITY: u8 = 2;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const GOAWAY: u8 = 7;
const WINDOW_UPDATE: u8 = 8;
/// The flag ACK of SETTINGS.
const ACK: u8 = 0x1;
/// The length of one setting.
const SETTING_LENGTH: usize = 6;

impl Frame {
    /// Whether the frame has a length that its type cannot have. The h2 crate refuses such a frame too, but with
    /// another code than FRAME_SIZE_ERROR.
    pub(super) fn has_wrong_length(&self) -> bool {
        match self.type_number {
            PRIORITY => self.length != 5,
            RST_STREAM | WINDOW_UPDATE => self.length != 4,
            SETTINGS if self.flags & ACK != 0 => self.length != 0,
            SETTINGS => !self.length.is_multiple_of(SETTING_LENGTH),
            PING => self.length != 8,
            GOAWAY => self.length < 8,
            _ => false,
        }
    }
    /// Whether a client's first frame may be this one.
    pub(super) fn may_come_first(&self) -> bool {
        self.type_number == SETTINGS && self.flags & ACK == 0
    }
}

/// Finds the frames in a stream of bytes.
pub(super) struct FrameParser {
    /// The number of bytes that still precede the first frame.
    preface: usize,
    header: [u8; HEADER_LENGTH],
    header_count: usize,
    lead: [u8; LEAD_LENGTH],
    payload_count: usize,
}

impl FrameParser {
    /// Creates a parser for a stream in which `preface` bytes precede the first frame.
    pub(super) fn new(preface: usize) -> Self {
        Self { preface, header: [0; HEADER_LENGTH], header_count: 0, lead: [0; LEAD_LENGTH], payload_count: 0 }
    }

    /// Reports the frames that end within these bytes.
    pub(super) fn feed(&mut self, bytes: &[u8], report: impl FnMut(Frame)) {
        let _all = self.feed_while(bytes, |_| true, report);
    }

    /// Like [`FrameParser::feed`], until `accepts` refuses a frame by its header. Returns how many of the bytes precede
    /// that frame, not counting bytes of its header that came in an earlier call.
    pub(super) fn feed_while(
        &mut self,
        bytes: &[u8],
        mut accepts: impl FnMut(&Frame) -> bool,
        mut report: impl FnMut(Frame),
    ) -> usize {
        let all = bytes.len();
        let mut bytes = bytes;
        let mut before = 0;
        let preface = self.preface.min(bytes.len());
        self.preface -= preface;
        bytes = &bytes[preface..];
        while !bytes.is_empty() {
            if self.header_count == 0 {
                before = all - bytes.len();
            }
            if self.header_count < HEADER_LENGTH {
                let count = bytes.len().min(HEADER_LENGTH - self.header_count);
                self.header[self.header_count..self.header_count + count].copy_from_slice(&bytes[..count]);
                self.header_count += count;
                bytes = &bytes[count..];
                if self.header_count == HEADER_LENGTH && !accepts(&self.frame()) {
                    return before;
                }
            }
            if self.header_count == HEADER_LENGTH {
                let count = bytes.len().min(self.length() - self.payload_count);
                if let Some(lead) = self.lead.get_mut(self.payload_count..) {
                    let kept = count.min(lead.len());
                    lead[..kept].copy_from_slice(&bytes[..kept]);
                }
                self.payload_count += count;
                bytes = &bytes[count..];
                if self.payload_count == self.length() {
                    report(self.frame());
                    (self.header_count, self.payload_count) = (0, 0);
                }
            }
        }
        all
    }

    /// Returns the stream of a DATA frame of which a part has come.
    pub(super) fn partial_data(&self) -> Option<u32> {
        (self.header_count == HEADER_LENGTH && self.frame().kind == FrameKind::Data).then(|| self.frame().stream)
    }

    /// Whether a part of a frame other than DATA has come.
    pub(super) fn is_within_other(&self) -> bool {
        self.header_count > 0 && self.partial_data().is_none()
    }

    fn length(&self) -> usize {
        usize::from(self.header[0]) << 16 | usize::from(self.header[1]) << 8 | usize::from(self.header[2])
    }

    fn frame(&self) -> Frame {
        let number = |at: usize| {
            let four = |bytes: &[u8]| bytes.iter().fold(0_u32, |number, byte| number << 8 | u32::from(*byte));
            move |bytes: &[u8]| four(&bytes[at..at + 4])
        };
        let kind = match self.header[3] {
            0 => FrameKind::Data,
            1 => FrameKind::Headers,
            3 => FrameKind::Reset(number(0)(&self.lead)),
            7 => FrameKind::GoAway(number(4)(&self.lead)),
            9 => FrameKind::Continuation,
            _ => FrameKind::Control,
        };
        let stream = number(5)(&self.header) & 0x7fff_ffff;
        Frame { kind, type_number: self.header[3], flags: self.header[4], stream, length: self.length() }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A frame on the wire.
    fn wire(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
        let mut bytes = (payload.len() as u32).to_be_bytes()[1..].to_vec();
        bytes.extend([kind, flags]);
        bytes.extend(stream.to_be_bytes());
        bytes.extend(payload);
        bytes
    }

    fn frames(preface: usize, pieces: &[&[u8]]) -> Vec<Frame> {
        let (mut parser, mut frames) = (FrameParser::new(preface), Vec::new());
        pieces.iter().for_each(|piece| parser.feed(piece, |frame| frames.push(frame)));
        frames
    }

    #[test]
    fn frames_are_found_with_their_codes() {
        let mut bytes = b"preface".to_vec();
        bytes.extend(wire(4, 0, 0, &[]));
        bytes.extend(wire(1, END_STREAM, 3, b"head"));
        bytes.extend(wire(9, END_HEADERS, 3, &[]));
        bytes.extend(wire(0, END_STREAM, 0x8000_0005, &[7; 300]));
        bytes.extend(wire(3, 0, 3, &8_u32.to_be_bytes()));
        bytes.extend(wire(7, 0, 0, &[0, 0, 0, 5, 0, 0, 0, 11, b'w', b'h', b'y']));
        let found = frames(7, &[&bytes]);
        let kinds: Vec<_> = found.iter().map(|frame| frame.kind).collect();
        let expected = [
            FrameKind::Control,
            FrameKind::Headers,
            FrameKind::Continuation,
            FrameKind::Data,
            FrameKind::Reset(8),
            FrameKind::GoAway(11),
        ];
        assert_eq!(kinds, expected);
        let streams: Vec<_> = found.iter().map(|frame| frame.stream).collect();
        assert_eq!(streams, [0, 3, 3, 5, 3, 0]);
        assert!(found[1].ends_stream() && !found[1].ends_head() && found[2].ends_head() && !found[2].ends_stream());
        assert_eq!((found[3].length, found[3].ends_stream()), (300, true));
    }

    #[test]
    fn a_frame_that_has_come_in_part_is_known() {
        let (data, head) = (wire(0, 0, 5, &[0; 10]), wire(1, 0, 7, &[0; 10]));
        let mut parser = FrameParser::new(0);
        let mut feed = |bytes: &[u8]| {
            parser.feed(bytes, |_| {});
            (parser.partial_data(), parser.is_within_other())
        };
        assert_eq!(feed(&data[..9]), (Some(5), false));
        assert_eq!(feed(&data[9..]), (None, false));
        assert_eq!(feed(&head[..3]), (None, true));
        assert_eq!(feed(&head[3..12]), (None, true));
        assert_eq!(feed(&head[12..]), (None, false));
    }

    #[test]
    fn a_refused_frame_and_what_is_behind_it_are_left() {
        let (ping, short) = (wire(6, 0, 0, &[0; 8]), wire(6, 0, 0, &[0; 7]));
        let bytes = [&ping[..], &short, &ping].concat();
        for cut in 0..=bytes.len() {
            let (mut parser, mut read, mut refused) = (FrameParser::new(0), 0, false);
            let mut reported = 0;
            for piece in [&bytes[..cut], &bytes[cut..]] {
                if !refused {
                    let accepts = |frame: &Frame| {
                        refused = frame.has_wrong_length();
                        !refused
                    };
                    read += parser.feed_while(piece, accepts, |_| reported += 1);
                }
            }
            let header = ping.len()..ping.len() + HEADER_LENGTH;
            let expected = if header.contains(&cut) { cut } else { ping.len() };
            assert_eq!((refused, reported, read), (true, 1, expected), "cut at {cut}");
        }
    }

    proptest! {
        #[test]
        fn frames_do_not_depend_on_how_the_bytes_are_divided(
            made in prop::collection::vec((0_u8..12, any::<u8>(), 0_u32..9, 0_usize..40), 0..12),
            cuts in prop::collection::vec(0_usize..600, 0..20),
        ) {
            let mut bytes = b"PRI".to_vec();
            for (kind, flags, stream, length) in &made {
                bytes.extend(wire(*kind, *flags, *stream, &vec![*flags; *length]));
            }
            let mut cuts: Vec<usize> = cuts.into_iter().map(|at| at.min(bytes.len())).collect();
            cuts.extend([0, bytes.len()]);
            cuts.sort_unstable();
            let pieces: Vec<&[u8]> = cuts.windows(2).map(|pair| &bytes[pair[0]..pair[1]]).collect();
            let (whole, divided) = (frames(3, &[&bytes]), frames(3, &pieces));
            prop_assert_eq!(whole.len(), made.len());
            // The code of a frame too short to have one is made of bytes that came before.
            let known = |frames: &[Frame]| -> Vec<(u8, u32, usize)> {
                frames.iter().map(|frame| (frame.flags, frame.stream, frame.length)).collect()
            };
            prop_assert_eq!(known(&whole), known(&divided));
        }
    }
}
