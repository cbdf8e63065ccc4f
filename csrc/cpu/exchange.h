// DLPack's C functions for exchanging tensors, as far as they are used here: version 1 of a layout that later
// versions may add to but not change (https://dmlc.github.io/dlpack/latest/c_api.html). torch's own copy of
// the header does not go with its stable ABI.

#pragma once

#include <cstdint>

namespace geokernels::exchange {

constexpr uint32_t kMajor = 1;
constexpr int32_t kCpu = 1;    // of Device::type
constexpr uint8_t kFloat = 2;  // of DataType::code

struct Device {
  int32_t type, id;
};

struct DataType {
  uint8_t code, bits;
  uint16_t lanes;
};

struct Seen {
  void* data;
  Device device;
  int32_t ndim;
  DataType dtype;
  int64_t *shape, *strides;
  uint64_t byte_offset;
};

struct Header {
  uint32_t major, minor;
  Header* previous;
};

// Of a Python object, without taking hold of it; 0, or -1 with an exception set.
using Tell = int (*)(void* object, Seen* out);

struct Functions {
  Header header;
  void (*unused[3])();  // what allocates, takes hold and gives away
  Tell tell;
  void (*stream)();
};

}  // namespace geokernels::exchange
