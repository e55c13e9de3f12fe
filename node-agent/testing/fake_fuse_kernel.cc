#include "node-agent/testing/fake_fuse_kernel.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/fuse.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

namespace dfscsi::testing {
namespace {

// A test cannot go on without its kernel.
void Require(bool condition, const char* what) {
  if (condition) return;
  perror(what);
  abort();
}

}  // namespace

FakeFuseKernel::FakeFuseKernel() {
  int ends[2];
  Require(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, ends) == 0,
          "socketpair");
  kernel_end_.reset(ends[0]);
  daemon_end_.reset(ends[1]);
  const int bytes = 8 << 20;  // Replies of 1 MiB, where we may.
  for (const int end : ends) {
    (void)setsockopt(end, SOL_SOCKET, SO_SNDBUFFORCE, &bytes, sizeof(bytes));
  }
}

UniqueFd FakeFuseKernel::OpenDevice() const {
  return UniqueFd(fcntl(daemon_end_.get(), F_DUPFD_CLOEXEC, 0));
}

std::string FakeFuseKernel::InitIn() {
  struct {
    fuse_in_header header;
    fuse_init_in init;
  } message = {};
  message.header.len = sizeof(message);
  message.header.opcode = FUSE_INIT;
  message.header.unique = 2;
  message.init.major = FUSE_KERNEL_VERSION;
  message.init.minor = 45;
  message.init.max_readahead = 128 << 10;
  message.init.flags = 0xfffffffb & ~static_cast<uint32_t>(FUSE_INIT_RESERVED);
  message.init.flags2 = 0x5fd;
  return std::string(BytesOf(message));
}

uint64_t FakeFuseKernel::Send(uint32_t opcode, uint64_t node, std::string_view body) {
  const uint64_t unique = Reserve();
  SendReserved(unique, opcode, node, body);
  return unique;
}

void FakeFuseKernel::SendReserved(uint64_t unique, uint32_t opcode, uint64_t node,
                                  std::string_view body) {
  fuse_in_header header = {};
  header.len = static_cast<uint32_t>(sizeof(header) + body.size());
  header.opcode = opcode;
  header.unique = unique;
  header.nodeid = node;
  header.pid = pid_;
  std::string message(BytesOf(header));
  message += body;
  Require(send(kernel_end_.get(), message.data(), message.size(), MSG_NOSIGNAL) ==
              static_cast<ssize_t>(message.size()),
          "send");
}

uint64_t FakeFuseKernel::SendLookup(uint64_t parent, std::string_view name) {
  return Send(FUSE_LOOKUP, parent, std::string(name) + '\0');
}

uint64_t FakeFuseKernel::SendOpen(uint64_t node, uint32_t flags) {
  fuse_open_in open = {};
  open.flags = flags;
  return Send(FUSE_OPEN, node, BytesOf(open));
}

uint64_t FakeFuseKernel::SendRead(uint64_t node, uint64_t fh, uint64_t offset, uint32_t size) {
  fuse_read_in read = {};
  read.fh = fh;
  read.offset = offset;
  read.size = size;
  return Send(FUSE_READ, node, BytesOf(read));
}

uint64_t FakeFuseKernel::SendReadDirectory(bool plus, uint64_t fh, uint64_t offset, uint32_t size) {
  fuse_read_in read = {};
  read.fh = fh;
  read.offset = offset;
  read.size = size;
  return Send(plus ? FUSE_READDIRPLUS : FUSE_READDIR, FUSE_ROOT_ID, BytesOf(read));
}

void FakeFuseKernel::SendInterrupt(uint64_t unique) {
  fuse_interrupt_in interrupt = {};
  interrupt.unique = unique;
  SendReserved(unique | kInterruptBit, FUSE_INTERRUPT, 0, BytesOf(interrupt));
}

void FakeFuseKernel::SendForget(uint64_t node, uint64_t lookups) {
  fuse_forget_in forget = {};
  forget.nlookup = lookups;
  Send(FUSE_FORGET, node, BytesOf(forget));
}

std::optional<FakeFuseKernel::Answer> FakeFuseKernel::TryReceive() {
  buffer_.resize((1 << 20) + 4096);
  const ssize_t n = recv(kernel_end_.get(), buffer_.data(), buffer_.size(), MSG_DONTWAIT);
  if (n < 0 && errno == EAGAIN) return std::nullopt;
  fuse_out_header header;
  Require(n >= static_cast<ssize_t>(sizeof(header)), "recv");
  memcpy(&header, buffer_.data(), sizeof(header));
  Require(header.len == static_cast<size_t>(n), "length of an answer");
  return Answer{
      header.unique, -header.error,
      std::string(buffer_.data() + sizeof(header), static_cast<size_t>(n) - sizeof(header))};
}

}  // namespace dfscsi::testing
