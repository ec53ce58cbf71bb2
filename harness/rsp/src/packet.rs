//! Packets: `$payload#checksum`, each answered with [`ACK`] or [`NAK`].

/// A packet has come whole.
pub const ACK: u8 = b'+';
/// It hasn't: send it again.
pub const NAK: u8 = b'-';
/// Longest payload that is taken, in bytes. QEMU's own bound is 4096.
pub const MAX_PACKET: usize = 16 * 1024;

const START: u8 = b'$';
/// Begins a packet that nobody asked for and nobody acknowledges.
const NOTICE: u8 = b'%';
const END: u8 = b'#';
const ESCAPE: u8 = b'}';
/// Repeats the byte before it.
const REPEAT: u8 = b'*';
/// What an escaped byte differs by.
const ESCAPED: u8 = 0x20;
/// A count of repetitions is sent as this much more, so that it is printable.
const COUNT: u8 = 29;

/// A payload as a packet.
pub fn frame(payload: &[u8]) -> Vec<u8> {
    let mut packet = vec![START];
    for byte in payload {
        match *byte {
            START | END | ESCAPE | REPEAT => packet.extend([ESCAPE, byte ^ ESCAPED]),
            byte => packet.push(byte),
        }
    }
    let sum = packet[1..]
        .iter()
        .fold(0u8, |sum, it| sum.wrapping_add(*it));
    packet.extend(format!("#{sum:02x}").bytes());
    packet
}

/// What comes from a stub.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Item {
    /// Our packet has come whole.
    Ack,
    /// It hasn't.
    Nak,
    /// A packet's payload, escapes and repetitions undone.
    Packet(Vec<u8>),
    /// A packet that is cut short, too long, or not what its checksum says.
    Garbled,
}

/// Where a byte stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    Outside,
    Payload,
    Escaped,
    Repeated,
    Sum,
    /// With the checksum's first digit.
    SumEnds(u8),
}

/// Finds packets in what comes, however it is cut into pieces.
#[derive(Debug)]
pub struct Decoder {
    place: Place,
    payload: Vec<u8>,
    sum: u8,
    notice: bool,
}

impl Default for Decoder {
    fn default() -> Self {
        Self {
            place: Place::Outside,
            payload: Vec::new(),
            sum: 0,
            notice: false,
        }
    }
}

impl Decoder {
    /// Takes the next bytes, gives what they complete.
    pub fn push(&mut self, bytes: &[u8]) -> Vec<Item> {
        bytes.iter().filter_map(|byte| self.take(*byte)).collect()
    }

    fn take(&mut self, byte: u8) -> Option<Item> {
        match (self.place, byte) {
            (Place::Outside, ACK) => Some(Item::Ack),
            (Place::Outside, NAK) => Some(Item::Nak),
            (Place::Outside, START | NOTICE) => self.begin(byte),
            // Noise between packets means nothing.
            (Place::Outside, _) => None,
            // Who sends it has given up the packet before.
            (Place::Payload, START) => {
                self.begin(byte);
                Some(Item::Garbled)
            }
            (Place::Payload, END) => {
                self.place = Place::Sum;
                None
            }
            (Place::Payload, ESCAPE) => self.on(byte, Place::Escaped),
            (Place::Payload, REPEAT) => self.on(byte, Place::Repeated),
            (Place::Payload, _) => self.put(byte, byte, 1),
            (Place::Escaped, _) => self.put(byte, byte ^ ESCAPED, 1),
            (Place::Repeated, _) => match (self.payload.last(), byte.checked_sub(COUNT)) {
                (Some(last), Some(count)) => self.put(byte, *last, usize::from(count)),
                _ => self.garbled(),
            },
            (Place::Sum, _) => match digit(byte) {
                Some(high) => {
                    self.place = Place::SumEnds(high);
                    None
                }
                None => self.garbled(),
            },
            (Place::SumEnds(high), _) => match digit(byte) {
                Some(low) if high << 4 | low == self.sum => {
                    self.place = Place::Outside;
                    let payload = std::mem::take(&mut self.payload);
                    (!self.notice).then_some(Item::Packet(payload))
                }
                _ => self.garbled(),
            },
        }
    }

    fn begin(&mut self, byte: u8) -> Option<Item> {
        *self = Self {
            place: Place::Payload,
            notice: byte == NOTICE,
            ..Self::default()
        };
        None
    }

    /// A byte that says what the next one means.
    fn on(&mut self, byte: u8, place: Place) -> Option<Item> {
        self.sum = self.sum.wrapping_add(byte);
        self.place = place;
        None
    }

    /// The byte on the wire stands for so many of another.
    fn put(&mut self, wire: u8, byte: u8, count: usize) -> Option<Item> {
        if self.payload.len() + count > MAX_PACKET {
            return self.garbled();
        }
        self.payload.resize(self.payload.len() + count, byte);
        self.on(wire, Place::Payload)
    }

    fn garbled(&mut self) -> Option<Item> {
        let notice = self.notice;
        *self = Self::default();
        (!notice).then_some(Item::Garbled)
    }
}

/// The value of a hexadecimal digit.
pub(crate) fn digit(byte: u8) -> Option<u8> {
    let value = char::from(byte).to_digit(16)?;
    u8::try_from(value).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn decoded(bytes: &[u8]) -> Vec<Item> {
        Decoder::default().push(bytes)
    }

    #[test]
    fn a_packet_is_as_the_manual_has_it() {
        assert_eq!(frame(b"OK"), b"$OK#9a");
        assert_eq!(
            frame(b"a}#"),
            b"$a}]}\x03#"
                .iter()
                .chain(b"bb")
                .copied()
                .collect::<Vec<_>>()
        );
        assert_eq!(
            decoded(b"+$OK#9a-"),
            [Item::Ack, Item::Packet(b"OK".into()), Item::Nak]
        );
    }

    #[test]
    fn a_run_is_spelled_out() {
        // The manual's example: "0* " is "0000".
        assert_eq!(decoded(b"$0* #7a"), [Item::Packet(b"0000".into())]);
        assert_eq!(decoded(b"$* #4a"), [Item::Garbled]);
    }

    #[test]
    fn what_is_wrong_is_told_and_what_follows_is_read() {
        let garbled = [Item::Garbled, Item::Packet(b"OK".into())];
        assert_eq!(decoded(b"$OK#00$OK#9a"), garbled);
        assert_eq!(decoded(b"$half$OK#9a"), garbled);
        assert_eq!(decoded(b"noise%Stop#00$OK#9a"), garbled[1..]);
        let long = [b"$".as_slice(), &[b'x'; MAX_PACKET + 1], b"#00$OK#9a"].concat();
        assert_eq!(decoded(&long), garbled);
    }

    proptest! {
        #[test]
        fn any_payload_comes_back_however_it_is_cut(
            payload in proptest::collection::vec(any::<u8>(), 0..300),
            piece in 1usize..40,
        ) {
            let mut decoder = Decoder::default();
            let items: Vec<_> = frame(&payload).chunks(piece).flat_map(|it| decoder.push(it)).collect();
            prop_assert_eq!(items, [Item::Packet(payload)]);
        }

        #[test]
        fn any_bytes_are_read(bytes in proptest::collection::vec(any::<u8>(), 0..600), piece in 1usize..40) {
            let mut decoder = Decoder::default();
            let items: Vec<_> = bytes.chunks(piece).flat_map(|it| decoder.push(it)).collect();
            prop_assert_eq!(items, decoded(&bytes));
        }

        /// The characters that mean something, so that all places are come to.
        #[test]
        fn any_packets_are_read(text in "[$#%}*+0-9a-f!-]{0,200}") {
            for item in decoded(text.as_bytes()) {
                if let Item::Packet(payload) = item {
                    prop_assert!(payload.len() <= MAX_PACKET);
                }
            }
        }
    }
}
