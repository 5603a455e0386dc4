//! The table of file extensions and content types.
