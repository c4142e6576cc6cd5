//! Header blocks as bytes (RFC 7541): each field in the representation that is asked for, valid or not; and the status
//! of an answer.

/// What a literal field does to the dynamic table.
#[derive(Clone, Copy, Debug)]
pub enum Indexing {
    Incremental,
    Without,
    Never,
}

/// The name of a literal field.
#[derive(Clone, Copy, Debug)]
pub enum Name<'a> {
    Index(u64),
    New(&'a str),
    /// Already in Huffman code.
    Huffman(&'a [u8]),
}

/// The value of a literal field.
#[derive(Clone, Copy, Debug)]
pub enum Text<'a> {
    Plain(&'a str),
    /// Already in Huffman code.
    Huffman(&'a [u8]),
}

/// Indexes of the static table (appendix A).
pub const AUTHORITY: u64 = 1;
pub const METHOD_GET: u64 = 2;
pub const PATH_ROOT: u64 = 4;
pub const SCHEME_HTTP: u64 = 6;
pub const USER_AGENT: u64 = 58;
/// The first index of the dynamic table.
pub const FIRST_DYNAMIC: u64 = 62;

/// An integer whose first byte has `high` in the bits before its prefix (section 5.1).
pub fn integer(prefix_bits: u32, high: u8, value: u64) -> Vec<u8> {
    let max = (1_u64 << prefix_bits) - 1;
    if value < max {
        return vec![high | value as u8];
    }
    let (mut bytes, mut rest) = (vec![high | max as u8], value - max);
    while rest >= 128 {
        bytes.push((rest % 128) as u8 | 0x80);
        rest /= 128;
    }
    bytes.push(rest as u8);
    bytes
}

/// A string literal (section 5.2).
pub fn string(is_huffman: bool, bytes: &[u8]) -> Vec<u8> {
    let mut all = integer(7, if is_huffman { 0x80 } else { 0 }, bytes.len() as u64);
    all.extend(bytes);
    all
}

/// A field of a table (section 6.1).
pub fn indexed(index: u64) -> Vec<u8> {
    integer(7, 0x80, index)
}

/// A literal field (section 6.2).
pub fn literal(indexing: Indexing, name: Name<'_>, value: Text<'_>) -> Vec<u8> {
    let (bits, high) = match indexing {
        Indexing::Incremental => (6, 0x40),
        Indexing::Without => (4, 0),
        Indexing::Never => (4, 0x10),
    };
    let mut bytes = match name {
        Name::Index(index) => integer(bits, high, index),
        Name::New(name) => [vec![high], string(false, name.as_bytes())].concat(),
        Name::Huffman(name) => [vec![high], string(true, name)].concat(),
    };
    bytes.extend(match value {
        Text::Plain(text) => string(false, text.as_bytes()),
        Text::Huffman(code) => string(true, code),
    });
    bytes
}

/// A field without compression.
pub fn field(name: &str, value: &str) -> Vec<u8> {
    literal(Indexing::Without, Name::New(name), Text::Plain(value))
}

/// A change of the dynamic table's size (section 6.3).
pub fn size_update(size: u64) -> Vec<u8> {
    integer(5, 0x20, size)
}

/// Fields without compression.
pub fn fields(all: &[(&str, &str)]) -> Vec<u8> {
    all.iter().flat_map(|(name, value)| field(name, value)).collect()
}

/// A request for `/` of `shop.test`, with more fields behind.
pub fn request(method: &str, more: &[(&str, &str)]) -> Vec<u8> {
    let mut block = fields(&[(":method", method), (":scheme", "http"), (":path", "/"), (":authority", "shop.test")]);
    block.extend(fields(more));
    block
}

/// The `:status` at the beginning of a header block, indexed in the static table or literal; `None` in another form.
pub fn status(mut block: &[u8]) -> Option<u16> {
    while block.first().is_some_and(|byte| byte & 0xe0 == 0x20) {
        block = &block[1..];
    }
    const STATIC: [u16; 7] = [200, 204, 206, 304, 400, 404, 500];
    match *block.first()? {
        indexed @ 0x88..=0x8e => STATIC.get(usize::from(indexed) - 0x88).copied(),
        0x08 | 0x18 | 0x48 => {
            let length = usize::from(block.get(1)? & 0x7f);
            let text = block.get(2..2 + length)?;
            match block[1] & 0x80 == 0 {
                true => std::str::from_utf8(text).ok()?.parse().ok(),
                false => huffman_digits(text).parse().ok(),
            }
        }
        _ => None,
    }
}

/// Three digits in Huffman code: `0` to `2` take 5 bits, the others 6.
fn huffman_digits(code: &[u8]) -> String {
    let bits: Vec<u32> = code.iter().flat_map(|byte| (0..8).rev().map(move |bit| u32::from(byte >> bit & 1))).collect();
    let number = |bits: &[u32]| bits.iter().fold(0, |number, bit| number << 1 | bit);
    let (mut at, mut text) = (0, String::new());
    while text.len() < 3 && at + 5 <= bits.len() {
        let (digit, length) = match number(&bits[at..at + 5]) {
            digit @ 0..=2 => (digit, 5),
            _ if at + 6 > bits.len() => break,
            _ => (number(&bits[at..at + 6]).wrapping_sub(22), 6),
        };
        text.extend(char::from_digit(digit, 10));
        at += length;
    }
    text
}

#[test]
fn integers_and_statuses_are_those_of_the_rfc() {
    assert_eq!(integer(5, 0, 10), [0b0000_1010]);
    assert_eq!(integer(5, 0, 1_337), [0b0001_1111, 0b1001_1010, 0b0000_1010]);
    assert_eq!(status(&[0x88]), Some(200));
    // From appendix C.6.1: `302`.
    assert_eq!(status(&[0x48, 0x82, 0x64, 0x02]), Some(302));
    assert_eq!(status(&[0x20, 0x08, 0x03, b'4', b'3', b'1']), Some(431));
}
