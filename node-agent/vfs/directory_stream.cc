#include "node-agent/vfs/directory_stream.h"

#include <errno.h>

#include <algorithm>
#include <utility>

#include "node-agent/base/status_macros.h"
#include "node-agent/runtime/loop.h"
#include "node-agent/smb/wire/directory.h"
#include "node-agent/smb/wire/file_name.h"
#include "node-agent/vfs/errno.h"

namespace dfscsi::vfs {

using runtime::Deadline;
using runtime::Task;

void DirectoryStream::CloseLater() {
  if (tree_ != nullptr) tree_->CloseLater(file_id_);
  tree_ = nullptr;
}

absl::Status DirectoryStream::Take(const smb::DirectoryPages& pages, absl::Time asked) {
  const absl::Time now = runtime::Loop::Current().Now();
  for (const std::vector<uint8_t>& page : pages.pages) {
    smb::wire::DirectoryReader reader(smb::wire::FileInfoClass::kIdBothDirectory, page);
    while (const std::optional<smb::wire::DirectoryEntry> entry = reader.Next()) {
      Entry taken;
      if (!smb::wire::FromWireName(entry->name, &taken.name)) {
        ++refused_names_;
        continue;
      }
      if (taken.name == "." || taken.name == "..") continue;
      if (!skip_.empty() && skip_.erase(HashOf(taken.name)) > 0) continue;
      taken.attributes = {
          .file = entry->attributes, .reparse_tag = entry->reparse_tag, .file_id = entry->file_id};
      taken.seen = {asked, now};
      window_.push_back(std::move(taken));
    }
    RETURN_IF_ERROR(reader.status());
    refused_names_ += reader.skipped();
  }
  complete_ = pages.complete;
  most_entries_held_ = std::max(most_entries_held_, window_.size());
  return absl::OkStatus();
}

Task<absl::Status> DirectoryStream::Restart(dfs::Binding binding, Deadline deadline) {
  CloseLater();
  window_.clear();
  skip_.clear();
  complete_ = false;
  base_ = given();
  if (base_ > 0) {
    ++relisted_;
    for (const uint64_t hash : handles_.StreamNames(fh_)) skip_.insert(hash);
  }
  const absl::Time asked = runtime::Loop::Current().Now();
  CO_ASSIGN_OR_RETURN(smb::Tree::OpenedDirectory opened,
                      co_await binding.tree->OpenDirectory(binding.path, deadline));
  tree_ = binding.tree;
  file_id_ = opened.file_id;
  epoch_ = binding.epoch;
  co_return Take(opened.pages, asked);
}

Task<absl::Status> DirectoryStream::Seek(uint64_t position, dfs::Binding binding,
                                         Deadline deadline) {
  if (position < base_ || (tree_ == nullptr && position < base_ + window_.size())) {
    // Further back than is kept (seekdir, rewinddir), or after a takeover.
    if (position < given()) handles_.TruncateStream(fh_, position);
    CO_RETURN_IF_ERROR(co_await Restart(binding, deadline));
  } else if (epoch_ != binding.epoch || tree_ == nullptr) {
    if (position < given()) handles_.TruncateStream(fh_, position);
    CO_RETURN_IF_ERROR(co_await Restart(binding, deadline));
  }
  while (position >= base_ + window_.size() && !complete_) {
    // The server goes on behind a page that was asked for, also if nobody takes it (cancelled,
    // destroyed): then the listing must begin anew, or its names are missing.
    struct Abandoned {
      DirectoryStream* stream;
      ~Abandoned() {
        if (stream != nullptr) stream->CloseLater();
      }
    } abandoned{this};
    const absl::Time asked = runtime::Loop::Current().Now();
    CO_ASSIGN_OR_RETURN(const smb::DirectoryPages pages,
                        co_await tree_->ReadDirectory(file_id_, deadline));
    CO_RETURN_IF_ERROR(Take(pages, asked));
    abandoned.stream = nullptr;
    DropBehind(position);
  }
  DropBehind(position);
  co_return absl::OkStatus();
}

void DirectoryStream::DropBehind(uint64_t position) {
  while (position > base_ + kKeptBehind && !window_.empty()) {
    window_.pop_front();
    ++base_;
  }
}

const DirectoryStream::Entry* DirectoryStream::At(uint64_t position) const {
  if (position < base_ || position >= base_ + window_.size()) return nullptr;
  return &window_[position - base_];
}

absl::Status DirectoryStream::NoteGiven(uint64_t position) {
  // What the kernel reads a second time has been noted before.
  if (position < given()) return absl::OkStatus();
  return handles_.AppendName(fh_, HashOf(At(position)->name));
}

}  // namespace dfscsi::vfs
