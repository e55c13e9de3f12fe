#include "node-agent/dfsctl/removal.h"

#include <cstdint>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "node-agent/agent/failure.h"
#include "node-agent/base/status_macros.h"
#include "node-agent/dfsctl/direct_call.h"
#include "node-agent/runtime/deadline.h"
#include "node-agent/smb/tree.h"
#include "node-agent/smb/wire/directory.h"
#include "node-agent/smb/wire/reparse.h"
#include "node-agent/smb/wire/utf16.h"

namespace dfscsi::dfsctl {

using runtime::Deadline;
using runtime::Task;

namespace {

struct Entry {
  std::string name;
  smb::FileType type = smb::FileType::kFile;
  bool is_link = false;      // A DFS link.
  bool has_content = false;  // Its own: a junction's is that of a folder elsewhere.
};

absl::Status AddEntries(const std::vector<uint8_t>& page, std::vector<Entry>* entries) {
  smb::wire::DirectoryReader reader(smb::wire::FileInfoClass::kIdBothDirectory, page);
  while (const std::optional<smb::wire::DirectoryEntry> listed = reader.Next()) {
    Entry entry;
    smb::wire::AppendUtf8(listed->name, &entry.name);
    if (entry.name == "." || entry.name == "..") continue;
    const bool reparse = listed->attributes.Has(smb::wire::kAttributeReparsePoint);
    entry.is_link = reparse && smb::wire::IsDfsTag(listed->reparse_tag);
    if (listed->attributes.Has(smb::wire::kAttributeDirectory)) {
      entry.type = smb::FileType::kDirectory;
      entry.has_content = !reparse;
    }
    entries->push_back(std::move(entry));
  }
  return reader.status();
}

Task<absl::Status> ListOn(dfs::Binding binding, std::vector<Entry>* entries) {
  entries->clear();
  CO_ASSIGN_OR_RETURN(
      smb::Tree::OpenedDirectory opened,
      co_await binding.tree->OpenDirectory(binding.path, Deadline::After(kAnswerTime)));
  struct Closed {
    smb::Tree& tree;
    smb::wire::FileId id;
    ~Closed() { tree.CloseLater(id); }
  } closed{*binding.tree, opened.file_id};
  smb::DirectoryPages pages = std::move(opened.pages);
  while (true) {
    for (const std::vector<uint8_t>& page : pages.pages) {
      CO_RETURN_IF_ERROR(AddEntries(page, entries));
    }
    if (pages.complete) co_return absl::OkStatus();
    CO_ASSIGN_OR_RETURN(
        pages, co_await binding.tree->ReadDirectory(opened.file_id, Deadline::After(kAnswerTime)));
  }
}

Task<absl::Status> RemoveNameOn(dfs::Binding binding, bool is_link, smb::FileType type) {
  if (is_link) co_return Refused("a DFS link or a share is not removed", agent::v1::BAD_ARGUMENT);
  co_return co_await binding.tree->Remove(binding.path, type, Deadline::After(kAnswerTime));
}

// One name. A link, or a share, is not a thing of its server's files.
Task<absl::Status> RemoveName(dfs::Client* client, dfs::DfsPath path, smb::FileType type) {
  co_return co_await client->Run(
      path,
      [&path, type](dfs::Binding binding) {
        const bool is_link = binding.link_components == path.size();
        return RemoveNameOn(std::move(binding), is_link, type);
      },
      {.repeatable = false}, Deadline::Never());
}

Task<absl::Status> RemoveTree(dfs::Client* client, dfs::DfsPath path) {
  std::vector<Entry> entries;
  CO_RETURN_IF_ERROR(Of(
      path,
      co_await client->Run(
          path, [&entries](dfs::Binding binding) { return ListOn(std::move(binding), &entries); },
          {}, Deadline::Never())));
  for (const Entry& entry : entries) {
    CO_ASSIGN_OR_RETURN(const dfs::DfsPath inside, path.Join(entry.name));
    if (entry.is_link) {
      co_return Of(inside, Refused("a DFS link is not removed", agent::v1::BAD_ARGUMENT));
    }
    if (entry.has_content) {
      CO_RETURN_IF_ERROR(co_await RemoveTree(client, inside));
    } else {
      CO_RETURN_IF_ERROR(Of(inside, co_await RemoveName(client, inside, entry.type)));
    }
  }
  co_return Of(path, co_await RemoveName(client, path, smb::FileType::kDirectory));
}

// What it is, but for its name. `is_link`: the path leads there and ends.
Task<absl::Status> LookOn(dfs::Binding binding, bool is_link, Entry* entry) {
  *entry = {.is_link = is_link};
  CO_ASSIGN_OR_RETURN(const smb::FileStatus there,
                      co_await binding.tree->Stat(binding.path, Deadline::After(kAnswerTime)));
  const bool reparse = there.attributes.Has(smb::wire::kAttributeReparsePoint);
  entry->is_link |= reparse && smb::wire::IsDfsTag(there.reparse_tag);
  if (there.attributes.Has(smb::wire::kAttributeDirectory)) {
    entry->type = smb::FileType::kDirectory;
    entry->has_content = !reparse;
  }
  co_return absl::OkStatus();
}

}  // namespace

Task<absl::Status> RemovePath(dfs::Client* client, dfs::DfsPath path, bool with_content) {
  Entry entry;
  CO_RETURN_IF_ERROR(Of(path, co_await client->Run(
                                  path,
                                  [&path, &entry](dfs::Binding binding) {
                                    const bool is_link = binding.link_components == path.size();
                                    return LookOn(std::move(binding), is_link, &entry);
                                  },
                                  {}, Deadline::Never())));
  if (entry.is_link) {
    co_return Of(path, Refused("a DFS link or a share is not removed", agent::v1::BAD_ARGUMENT));
  }
  if (!entry.has_content) co_return Of(path, co_await RemoveName(client, path, entry.type));
  if (!with_content) {
    co_return Of(path,
                 Refused("is a folder; -r removes it and what is in it", agent::v1::MISSING_PATH));
  }
  co_return co_await RemoveTree(client, path);
}

}  // namespace dfscsi::dfsctl
