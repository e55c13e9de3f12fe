// An intrusive doubly linked list whose nodes unlink themselves when they die.
//
// It lets a suspended coroutine be destroyed at any time: what waits in a queue lives in the
// coroutine's frame, and leaves the queue with it.

#ifndef NODE_AGENT_RUNTIME_LIST_H_
#define NODE_AGENT_RUNTIME_LIST_H_

namespace dfscsi::runtime {

class ListNode {
 public:
  ListNode() = default;
  ListNode(const ListNode&) = delete;
  ListNode& operator=(const ListNode&) = delete;
  ~ListNode() { Unlink(); }

  bool linked() const { return next_ != this; }

  void Unlink() {
    prev_->next_ = next_;
    next_->prev_ = prev_;
    prev_ = next_ = this;
  }

 private:
  template <class T, class Link>
  friend class List;

  void InsertBefore(ListNode& at) {
    Unlink();
    prev_ = at.prev_;
    next_ = &at;
    at.prev_->next_ = this;
    at.prev_ = this;
  }

  ListNode* prev_ = this;
  ListNode* next_ = this;
};

// A list of T, which derives from Link, which derives from ListNode. (A T that stands in two lists
// derives from two Links.) Does not own; nodes still in it when it dies are unlinked.
template <class T, class Link = T>
class List {
 public:
  List() = default;
  ~List() {
    while (!empty()) head_.next_->Unlink();
  }

  bool empty() const { return !head_.linked(); }
  void PushBack(T& item) { static_cast<Link&>(item).InsertBefore(head_); }
  T* Front() const { return empty() ? nullptr : static_cast<T*>(static_cast<Link*>(head_.next_)); }
  T* PopFront() {
    T* const item = Front();
    if (item != nullptr) static_cast<Link*>(item)->Unlink();
    return item;
  }

 private:
  ListNode head_;
};

}  // namespace dfscsi::runtime

#endif  // NODE_AGENT_RUNTIME_LIST_H_
