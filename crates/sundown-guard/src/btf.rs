//! What the running kernel says of its own types (BTF, linux/btf.h).

/// The kernel's own description of its types.
pub(crate) const KERNEL: &str = "/sys/kernel/btf/vmlinux";

const MAGIC: u16 = 0xeb9f;

const STRUCT: u8 = 4;
const FUNCTION: u8 = 12;

/// A description; it borrows what was read.
pub(crate) struct Btf<'a> {
    types: &'a [u8],
    strings: &'a [u8],
}

/// One type of it.
struct Type<'a> {
    name: &'a [u8],
    kind: u8,
    /// Whether offsets of members share their word with the size of bit fields.
    packed: bool,
    /// What follows: members, parameters, values.
    rest: &'a [u8],
}

impl<'a> Btf<'a> {
    /// Reads the header; `None` for what is no description.
    pub(crate) fn read(bytes: &'a [u8]) -> Option<Self> {
        if u16::from_ne_bytes(*bytes.first_chunk()?) != MAGIC {
            return None;
        }
        // hdr_len, type_off, type_len, str_off, str_len
        let [header, types, types_length, strings, strings_length] =
            [4, 8, 12, 16, 20].map(|at| word(bytes, at).map(|word| word as usize));
        let body = bytes.get(header?..)?;
        Some(Self {
            types: body.get(types?..)?.get(..types_length?)?,
            strings: body.get(strings?..)?.get(..strings_length?)?,
        })
    }

    /// The number of a function.
    pub(crate) fn function(&self, name: &str) -> Option<u32> {
        let found = self
            .types()
            .position(|one| one.kind == FUNCTION && one.name == name.as_bytes())?;
        // Number 0 is `void`.
        u32::try_from(found + 1).ok()
    }

    /// Where members of a structure lie in it, in bytes; `None` if it has not all of them.
    pub(crate) fn offsets<const N: usize>(&self, of: &str, members: [&str; N]) -> Option<[i16; N]> {
        let of = self
            .types()
            .find(|one| one.kind == STRUCT && one.name == of.as_bytes())?;
        let offset = |member: &str| {
            let mut all = of.rest.chunks_exact(12);
            let found = all.find(|one| self.name(one, 0) == Some(member.as_bytes()))?;
            let bits = word(found, 8)?;
            let bits = if of.packed { bits & 0xff_ffff } else { bits };
            i16::try_from(bits / 8).ok()
        };
        let mut offsets = [0; N];
        for (member, place) in members.into_iter().zip(&mut offsets) {
            *place = offset(member)?;
        }
        Some(offsets)
    }

    fn types(&self) -> impl Iterator<Item = Type<'a>> {
        let mut left = self.types;
        let strings = self.strings;
        std::iter::from_fn(move || {
            let information = word(left, 4)?;
            let count = (information & 0xffff) as usize;
            let kind = (information >> 24 & 0x1f) as u8;
            let length = match kind {
                // An integer, a variable, a tag of a declaration.
                1 | 14 | 17 => 4,
                // An array.
                3 => 12,
                // Structures, unions, sections, enumerations of 64 bits.
                STRUCT | 5 | 15 | 19 => 12 * count,
                // Enumerations, prototypes.
                6 | 13 => 8 * count,
                _ => 0,
            };
            let one = Type {
                name: name(strings, word(left, 0)?)?,
                kind,
                packed: information >> 31 == 1,
                rest: left.get(12..12 + length)?,
            };
            left = &left[12 + length..];
            Some(one)
        })
    }

    fn name(&self, bytes: &[u8], at: usize) -> Option<&'a [u8]> {
        name(self.strings, word(bytes, at)?)
    }
}

fn name(strings: &[u8], at: u32) -> Option<&[u8]> {
    strings.get(at as usize..)?.split(|byte| *byte == 0).next()
}

fn word(bytes: &[u8], at: usize) -> Option<u32> {
    let bytes = bytes.get(at..)?.first_chunk()?;
    Some(u32::from_ne_bytes(*bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A description of an integer, a structure with two members, and a function.
    fn description(packed: bool) -> Vec<u8> {
        let strings = b"\0int\0pair\0first\0second\0add\0";
        let at = |name: &[u8]| {
            let found = strings.windows(name.len() + 1);
            let mut found = found
                .enumerate()
                .filter(|(_, bytes)| bytes[..name.len()] == *name);
            found.next().unwrap().0 as u32
        };
        let kind = |kind: u8, count: u32| u32::from(kind) << 24 | count;
        let types = [
            vec![at(b"int"), kind(1, 0), 4, 32],
            vec![at(b"pair"), kind(STRUCT, 2) | u32::from(packed) << 31, 12],
            vec![at(b"first"), 1, 0],
            vec![at(b"second"), 1, 64 | if packed { 3 << 24 } else { 0 }],
            vec![at(b"add"), kind(FUNCTION, 0), 1],
        ]
        .concat();
        let types: Vec<u8> = types.into_iter().flat_map(u32::to_ne_bytes).collect();
        let lengths = [24, 0, types.len(), types.len(), strings.len()];
        let mut bytes = MAGIC.to_ne_bytes().to_vec();
        bytes.extend([1, 0]);
        bytes.extend(
            lengths
                .into_iter()
                .flat_map(|length| (length as u32).to_ne_bytes()),
        );
        [bytes, types, strings.to_vec()].concat()
    }

    #[test]
    fn functions_and_members_are_found_by_their_names() {
        for packed in [false, true] {
            let bytes = description(packed);
            let btf = Btf::read(&bytes).unwrap();
            assert_eq!(btf.function("add"), Some(3));
            assert_eq!(btf.function("pair"), None);
            assert_eq!(btf.offsets("pair", ["second", "first"]), Some([8, 0]));
            assert_eq!(btf.offsets("pair", ["third"]), None);
            assert_eq!(btf.offsets("add", ["first"]), None);
        }
    }

    #[test]
    fn what_is_cut_short_is_no_reason_to_panic() {
        let bytes = description(false);
        for length in 0..bytes.len() {
            if let Some(btf) = Btf::read(&bytes[..length]) {
                let _ = (btf.function("add"), btf.offsets("pair", ["second"]));
            }
        }
        assert!(Btf::read(b"no description of anything").is_none());
    }
}
