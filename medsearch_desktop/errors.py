"""Everything that can go wrong, as a map.

    MedSearchError                    the operation failed (exit status 1)
    ├── ConfigError                   a setting is unknown or has a value out of range
    ├── SourceError                   a folder or file cannot be read at all
    ├── DecodeError                   one file's bytes do not become pixels
    │   ├── NotAnImageError           neither DICOM nor a known raster format
    │   ├── TruncatedFileError        the file ends before its header says it does
    │   ├── NoPixelsError             a sound DICOM file without an image in it
    │   │   └── NotAPictureError      one that is none by its kind: a report, a plan, a segmentation
    │   └── UnsupportedPixelsError    a transfer syntax or pixel layout no decoder here reads
    ├── ReportError                   one file's bytes do not become report text
    ├── TerminologyError              a base of concepts cannot be read, made or imported
    ├── ModelError                    a model, of images or of language
    │   ├── ModelMissingError         its file is not there
    │   └── ModelAlteredError         its file is not the one the manifest describes
    ├── LibraryError                  the library folder
    │   ├── LibraryNotFoundError      no library at that path
    │   ├── LibraryLockedError        another process owns it
    │   ├── LibraryFormatError        written by a newer release, or damaged beyond healing
    │   └── StorageFullError          the disk is full; everything committed before stays readable
    ├── MeterError                    too little in the library to measure the match meter by
    ├── ListError                     a saved search or teaching list: a name is taken, a file is no list
    ├── NotFoundError                 no such image, report or study in this library
    ├── StationError                  another DICOM station cannot be reached, or refuses
    ├── ServeError                    the local server cannot begin, or went away
    ├── RequestError                  a request to the local server that it cannot take
    │   └── StaleCursorError          the library has changed since the first page of an answer
    └── QueryError                    a question that cannot be read; knows the character

`DecodeError` and `ReportError` concern one file: ingest counts and lists them and goes on.
All others stop the operation. A message names the item, the limit and the remedy, and never
holds patient data.
"""

from __future__ import annotations


class MedSearchError(Exception):
    """An operation failed for a reason that can be told to its user.

    `str()` gives one line: what happened, then what to do about it. `item` is the path, setting
    or identifier concerned and `remedy` the second half of that line; both may be empty.
    """

    def __init__(self, message: str, *, item: str = "", remedy: str = "") -> None:
        self.message = message
        self.item = item
        self.remedy = remedy
        super().__init__(message)

    def __str__(self) -> str:
        line = f"{self.item}: {self.message}" if self.item else self.message
        return f"{line}. {self.remedy}" if self.remedy else line


class ConfigError(MedSearchError):
    """A setting is unknown or has a value that it cannot take."""


class SourceError(MedSearchError):
    """A folder or file cannot be read at all."""


class DecodeError(MedSearchError):
    """The bytes of one file do not become pixels; the ingest goes on with the next."""


class NotAnImageError(DecodeError):
    """The file is neither DICOM nor a raster format that is indexed."""


class TruncatedFileError(DecodeError):
    """The file ends before its own header says it does."""


class NoPixelsError(DecodeError):
    """A sound DICOM file that holds no image."""


class NotAPictureError(NoPixelsError):
    """A sound DICOM file that is no picture by its kind; its header is indexed, and nothing has failed."""


class UnsupportedPixelsError(DecodeError):
    """A transfer syntax or pixel layout that no installed decoder reads."""


class ReportError(MedSearchError):
    """The bytes of one file do not become report text; the ingest goes on with the next."""


class TerminologyError(MedSearchError):
    """A base of concepts cannot be read, made or imported; the one in use stays in use."""


class ModelError(MedSearchError):
    """A model, of images or of language, cannot be used."""


class ModelMissingError(ModelError):
    """The file of a registered model is not there."""


class ModelAlteredError(ModelError):
    """The file of a registered model is not the one that its manifest entry describes."""


class LibraryError(MedSearchError):
    """The library folder cannot be used."""


class LibraryNotFoundError(LibraryError):
    """There is no library at that path."""


class LibraryLockedError(LibraryError):
    """Another process owns the library."""


class LibraryFormatError(LibraryError):
    """The library was written by a newer release or is damaged beyond healing."""


class StorageFullError(LibraryError):
    """The disk is full; what was committed before stays readable."""


class MeterError(MedSearchError):
    """The library holds too few images with a report for the match meter to be measured."""


class ListError(MedSearchError):
    """A saved search or teaching list cannot be kept, brought in or written out as asked."""


class NotFoundError(MedSearchError):
    """The library holds no image, report or study of that identifier."""


class ServeError(MedSearchError):
    """The local server cannot begin, or went away before it had answered."""


class StationError(MedSearchError):
    """Another DICOM station cannot be reached, or refuses."""


class RequestError(MedSearchError):
    """A request to the local server that it cannot take."""


class StaleCursorError(RequestError):
    """The library has changed since the first page of an answer, whose pages would not fit together."""


class QueryError(MedSearchError):
    """A question that cannot be read.

    `position` is the offset, in characters of the query, of the first one at fault.
    """

    def __init__(self, message: str, *, query: str, position: int, remedy: str = "") -> None:
        super().__init__(message, remedy=remedy)
        self.query = query
        self.position = position

    def __str__(self) -> str:
        return f"{super().__str__()}\n  {self.query}\n  {' ' * self.position}^"
