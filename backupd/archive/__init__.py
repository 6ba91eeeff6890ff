"""What an archive is made of: chunks, frames, index and file list. Pure: bytes in, bytes out."""

from backupd.archive.chunker import Chunker, ChunkerParameters
from backupd.archive.codec import Codec, codec_for, codec_of
from backupd.archive.filelist import FileListWriter, read_file_list
from backupd.archive.forecast import ChunkOrder
from backupd.archive.index import ChunkRef, Index, IndexWriter
from backupd.archive.reader import ArchiveReader, select, unpack
from backupd.archive.sealed import SealedCodec
from backupd.archive.splice import Edit, MadeMember, Part, Splice, below, without
from backupd.archive.tarwalk import Member, TarWalker
from backupd.archive.writer import ArchiveSinks, ArchiveSummary, ArchiveWriter, Location

__all__ = [
    "ArchiveReader",
    "ArchiveSinks",
    "ArchiveSummary",
    "ArchiveWriter",
    "ChunkOrder",
    "ChunkRef",
    "Chunker",
    "ChunkerParameters",
    "Codec",
    "Edit",
    "FileListWriter",
    "Index",
    "IndexWriter",
    "Location",
    "MadeMember",
    "Member",
    "Part",
    "SealedCodec",
    "Splice",
    "TarWalker",
    "below",
    "codec_for",
    "codec_of",
    "read_file_list",
    "select",
    "unpack",
    "without",
]
