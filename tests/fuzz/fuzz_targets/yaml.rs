//! Any text is YAML or an error, and what is written reads back the same.
#![no_main]

use engine::object::yaml::{Dialect, read_documents_as, write};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let Ok(text) = std::str::from_utf8(data) else { return };
    for dialect in [Dialect::Manifest, Dialect::Settings] {
        let Ok(documents) = read_documents_as(text, "f.yaml", dialect) else { continue };
        for document in documents {
            let written = write(&document.value);
            let again = read_documents_as(&written, "w.yaml", dialect)
                .unwrap_or_else(|error| panic!("{error}\n{written}"));
            let again = again.into_iter().next().map(|document| document.value).unwrap_or_default();
            assert_eq!(again, document.value, "{written}");
        }
    }
});
