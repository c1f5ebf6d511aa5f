//! Reads the file that says what is in the application's environment.

use std::io;
use std::path::Path;

/// The variables of a file of lines `NAME=VALUE`, in their order; quotes, `#` and `export` are as in a shell.
///
/// # Errors
/// With the file's name, if it cannot be read, and with the line that is none.
pub(crate) fn read(path: &Path) -> io::Result<Vec<(String, String)>> {
    let told = |error: dotenvy::Error| {
        let shown = path.display();
        match error {
            dotenvy::Error::Io(error) => io::Error::new(error.kind(), format!("{shown}: {error}")),
            other => io::Error::new(io::ErrorKind::InvalidData, format!("{shown}: {other}")),
        }
    };
    dotenvy::from_path_iter(path)
        .map_err(told)?
        .map(|variable| variable.map_err(told))
        .collect()
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn a_file_is_read_or_its_bad_line_is_told() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("env");
        fs::write(
            &path,
            "# what\nPORT=80\nWORDS=\"two words\"\n\nexport LAST='$1'\n",
        )
        .unwrap();
        let expected = [("PORT", "80"), ("WORDS", "two words"), ("LAST", "$1")];
        let expected: Vec<_> = expected
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .into();
        assert_eq!(read(&path).unwrap(), expected);
        fs::write(&path, "no variable\n").unwrap();
        let told = read(&path).unwrap_err().to_string();
        assert!(
            told.contains("env: ") && told.contains("no variable"),
            "{told}"
        );
        let told = read(&folder.path().join("none")).unwrap_err().to_string();
        assert!(told.contains("none: "), "{told}");
    }
}
