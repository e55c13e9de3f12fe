// The floor of every FUSE file system: a local folder, read-only, through libfuse and nothing else.
// `make bench` puts its numbers beside ours.
//
//   passthrough_fuse FOLDER MOUNTPOINT    runs in the foreground until it is unmounted

#define FUSE_USE_VERSION 314

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <fuse_lowlevel.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <array>
#include <string>
#include <unordered_map>
#include <vector>

namespace {

constexpr double kTimeout = 1.0;

// libfuse carries inodes and handles as integers.
template <typename T>
T* PointerIn(uint64_t carried) {
  return reinterpret_cast<T*>(carried);  // NOLINT(performance-no-int-to-ptr): as libfuse has it.
}

// An inode is its O_PATH descriptor, found again by device and inode number.
struct Inode {
  int fd = -1;
  uint64_t lookups = 0;
  dev_t device = 0;
  ino_t number = 0;
};

struct Folder {
  std::unordered_map<uint64_t, Inode*> by_number;  // One file system only.
  Inode root;

  Inode& Get(fuse_ino_t ino) { return ino == FUSE_ROOT_ID ? root : *PointerIn<Inode>(ino); }
};

Folder& FolderOf(fuse_req_t request) { return *static_cast<Folder*>(fuse_req_userdata(request)); }

std::string ProcPath(int fd) { return "/proc/self/fd/" + std::to_string(fd); }

int Find(Folder& folder, fuse_ino_t parent, const char* name, fuse_entry_param* entry) {
  const int fd = openat(folder.Get(parent).fd, name, O_PATH | O_NOFOLLOW | O_CLOEXEC);
  if (fd < 0) return errno;
  *entry = {};
  if (fstatat(fd, "", &entry->attr, AT_EMPTY_PATH) != 0) {
    const int error = errno;
    close(fd);
    return error;
  }
  entry->attr_timeout = entry->entry_timeout = kTimeout;
  Inode*& inode = folder.by_number[entry->attr.st_ino];
  if (inode == nullptr) {
    inode = new Inode{fd, 0, entry->attr.st_dev, entry->attr.st_ino};
  } else {
    close(fd);
  }
  ++inode->lookups;
  entry->ino = reinterpret_cast<fuse_ino_t>(inode);
  return 0;
}

void Forget(Folder& folder, fuse_ino_t ino, uint64_t count) {
  if (ino == FUSE_ROOT_ID) return;
  Inode& inode = folder.Get(ino);
  inode.lookups -= count;
  if (inode.lookups != 0) return;
  folder.by_number.erase(inode.number);
  close(inode.fd);
  delete &inode;
}

void OnLookup(fuse_req_t request, fuse_ino_t parent, const char* name) {
  fuse_entry_param entry;
  const int error = Find(FolderOf(request), parent, name, &entry);
  if (error != 0) {
    fuse_reply_err(request, error);
  } else {
    fuse_reply_entry(request, &entry);
  }
}

void OnForget(fuse_req_t request, fuse_ino_t ino, uint64_t count) {
  Forget(FolderOf(request), ino, count);
  fuse_reply_none(request);
}

void OnForgetMulti(fuse_req_t request, size_t count, fuse_forget_data* forgets) {
  for (size_t i = 0; i < count; ++i) {
    Forget(FolderOf(request), forgets[i].ino, forgets[i].nlookup);
  }
  fuse_reply_none(request);
}

void OnGetattr(fuse_req_t request, fuse_ino_t ino, fuse_file_info* /*file*/) {
  struct stat attributes;
  if (fstatat(FolderOf(request).Get(ino).fd, "", &attributes, AT_EMPTY_PATH) != 0) {
    fuse_reply_err(request, errno);
  } else {
    fuse_reply_attr(request, &attributes, kTimeout);
  }
}

void OnReadlink(fuse_req_t request, fuse_ino_t ino) {
  std::array<char, 4097> text;
  const ssize_t length =
      readlinkat(FolderOf(request).Get(ino).fd, "", text.data(), text.size() - 1);
  if (length < 0) {
    fuse_reply_err(request, errno);
  } else {
    text[length] = '\0';
    fuse_reply_readlink(request, text.data());
  }
}

void OnOpen(fuse_req_t request, fuse_ino_t ino, fuse_file_info* file) {
  if ((file->flags & O_ACCMODE) != O_RDONLY) {
    fuse_reply_err(request, EROFS);
    return;
  }
  const int fd = open(ProcPath(FolderOf(request).Get(ino).fd).c_str(),
                      (file->flags & ~(O_NOFOLLOW | O_DIRECT)) | O_CLOEXEC);
  if (fd < 0) {
    fuse_reply_err(request, errno);
    return;
  }
  file->fh = fd;
  fuse_reply_open(request, file);
}

void OnRead(fuse_req_t request, fuse_ino_t /*ino*/, size_t size, off_t offset,
            fuse_file_info* file) {
  fuse_bufvec data = FUSE_BUFVEC_INIT(size);
  data.buf[0].flags = static_cast<fuse_buf_flags>(FUSE_BUF_IS_FD | FUSE_BUF_FD_SEEK);
  data.buf[0].fd = static_cast<int>(file->fh);
  data.buf[0].pos = offset;
  fuse_reply_data(request, &data, FUSE_BUF_SPLICE_MOVE);
}

void OnRelease(fuse_req_t request, fuse_ino_t /*ino*/, fuse_file_info* file) {
  close(static_cast<int>(file->fh));
  fuse_reply_err(request, 0);
}

void OnOpendir(fuse_req_t request, fuse_ino_t ino, fuse_file_info* file) {
  const int fd =
      open(ProcPath(FolderOf(request).Get(ino).fd).c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  DIR* directory = fd < 0 ? nullptr : fdopendir(fd);
  if (directory == nullptr) {
    fuse_reply_err(request, errno);
    return;
  }
  file->fh = reinterpret_cast<uint64_t>(directory);
  fuse_reply_open(request, file);
}

void OnReaddirplus(fuse_req_t request, fuse_ino_t ino, size_t size, off_t offset,
                   fuse_file_info* file) {
  DIR* directory = PointerIn<DIR>(file->fh);
  if (offset != telldir(directory)) seekdir(directory, offset);
  std::vector<char> reply(size);
  size_t used = 0;
  for (;;) {
    const off_t before = telldir(directory);
    const dirent* found = readdir(directory);
    if (found == nullptr) break;
    fuse_entry_param entry = {};
    const bool dots = strcmp(found->d_name, ".") == 0 || strcmp(found->d_name, "..") == 0;
    if (dots || Find(FolderOf(request), ino, found->d_name, &entry) != 0) {
      entry.attr.st_ino = found->d_ino;
      entry.attr.st_mode = found->d_type << 12;
    }
    const size_t needed = fuse_add_direntry_plus(request, reply.data() + used, size - used,
                                                 found->d_name, &entry, telldir(directory));
    if (needed > size - used) {
      if (entry.ino != 0) Forget(FolderOf(request), entry.ino, 1);
      seekdir(directory, before);
      break;
    }
    used += needed;
  }
  fuse_reply_buf(request, reply.data(), used);
}

void OnReleasedir(fuse_req_t request, fuse_ino_t /*ino*/, fuse_file_info* file) {
  closedir(PointerIn<DIR>(file->fh));
  fuse_reply_err(request, 0);
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 3) {
    fputs("usage: passthrough_fuse FOLDER MOUNTPOINT\n", stderr);
    return 2;
  }
  Folder folder;
  folder.root.fd = open(argv[1], O_PATH | O_DIRECTORY | O_CLOEXEC);
  if (folder.root.fd < 0) {
    perror(argv[1]);
    return 1;
  }
  fuse_lowlevel_ops operations = {};
  operations.lookup = OnLookup;
  operations.forget = OnForget;
  operations.forget_multi = OnForgetMulti;
  operations.getattr = OnGetattr;
  operations.readlink = OnReadlink;
  operations.open = OnOpen;
  operations.read = OnRead;
  operations.release = OnRelease;
  operations.opendir = OnOpendir;
  operations.readdirplus = OnReaddirplus;
  operations.releasedir = OnReleasedir;

  fuse_args arguments = FUSE_ARGS_INIT(0, nullptr);
  fuse_opt_add_arg(&arguments, argv[0]);
  fuse_opt_add_arg(&arguments, "-oro,allow_other,fsname=passthrough");
  fuse_session* session = fuse_session_new(&arguments, &operations, sizeof(operations), &folder);
  if (session == nullptr || fuse_session_mount(session, argv[2]) != 0) return 1;
  const int result = fuse_session_loop(session);
  fuse_session_unmount(session);
  fuse_session_destroy(session);
  fuse_opt_free_args(&arguments);
  return result == 0 ? 0 : 1;
}
