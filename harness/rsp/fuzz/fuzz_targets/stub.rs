//! Any bytes from a stub, in pieces of any size, are read without a panic, and the pieces change
//! nothing.
#![no_main]

use knobrig_rsp::{Decoder, Item, MAX_PACKET, done, frame, registers, stopped};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    // The first byte is the length of the pieces.
    let Some((piece, bytes)) = input.split_first() else {
        return;
    };
    let mut decoder = Decoder::default();
    let pieces = bytes.chunks(usize::from(*piece).max(1));
    let items: Vec<_> = pieces.flat_map(|piece| decoder.push(piece)).collect();
    assert_eq!(items, Decoder::default().push(bytes));
    for item in items {
        let Item::Packet(payload) = item else {
            continue;
        };
        assert!(payload.len() <= MAX_PACKET);
        let _ = (done(&payload), stopped(&payload), registers(&payload));
        let again = Decoder::default().push(&frame(&payload));
        assert_eq!(again, [Item::Packet(payload)]);
    }
});
