// Numbers that forked ranks hand to the test.
#pragma once

#include <sys/mman.h>

#include <cstdint>
#include <vector>

namespace deepspeed {

// Memory that forked ranks share with the test.
class SharedDoubles {
 public:
  explicit SharedDoubles(int64_t n) : n_(n) {
    data_ = static_cast<double*>(::mmap(
        nullptr,
        (n + 1) * sizeof(double), // n may be 0
        PROT_READ | PROT_WRITE,
        MAP_SHARED | MAP_ANONYMOUS,
        -1,
        0));
  }
  ~SharedDoubles() {
    ::munmap(data_, (n_ + 1) * sizeof(double));
  }
  SharedDoubles(const SharedDoubles&) = delete;
  SharedDoubles& operator=(const SharedDoubles&) = delete;

  double& operator[](int64_t i) {
    return data_[i];
  }
  std::vector<double> all() const {
    return {data_, data_ + n_};
  }

 private:
  int64_t n_;
  double* data_;
};

} // namespace deepspeed
