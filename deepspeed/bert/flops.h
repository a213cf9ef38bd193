// How much arithmetic training takes, and how fast this machine does it.
#pragma once

#include "deepspeed/bert/batch.h"
#include "deepspeed/bert/config.h"

namespace deepspeed::bert {

// Operations of forward and backward for one batch; a multiplication with its
// addition is two. Counted are the products of the encoder (4 h^2 a token and
// layer for keys and values, 4 (h^2 + h f) for the rest), the attention (4 h n
// for a query in a sequence of n tokens) and the head (2 (h^2 + h V) a masked
// token), three times: backward makes two products for each of forward's. In
// the last layer nothing but the keys and values is needed of a token that is
// not masked. What is done twice to save memory does not count, nor do padding
// and the rest (well below 1 %).
double training_flops(const RobertaConfig& config, const Batch& batch);

// Operations per second of the matrix products that the model's blocks make in
// `dtype`, at a shape that suits them (1024 x 1024 x 1024), with at's threads:
// the best of the products that fit into 0.25 seconds. Takes 12 MB, and longer
// on a machine that does less than 9 GFLOP/s.
double measure_product_peak(at::ScalarType dtype);

} // namespace deepspeed::bert
