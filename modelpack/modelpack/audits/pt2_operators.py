"""The operators of exported torch programs that are taken: arithmetic on tensors that checks its own bounds, or whose
arguments the flavor checks before each call.

Left out on purpose: what reads files, gives uninitialised memory, changes the storage of a tensor, skips checks of
indices, starts other code, or only trains.
"""

from __future__ import annotations

__all__ = ["ATEN", "PLAIN", "listed"]


def _words(text: str) -> list[str]:
    return text.split()


# Names in torch.ops.aten; each also stands for its in-place form, with an underscore at the end.
_BOTH = """
abs absolute acos acosh add addbmm addcdiv addcmul addmm addmv addr arccos arccosh arcsin arcsinh arctan arctan2
arctanh asin asinh atan atan2 atanh baddbmm bitwise_and bitwise_left_shift bitwise_not bitwise_or bitwise_right_shift
bitwise_xor ceil celu clamp clamp_max clamp_min clip conj_physical copy copysign cos cosh cumprod cumsum deg2rad
detach digamma div divide dropout elu eq erf erfc erfinv exp exp2 expm1 feature_dropout fill fix float_power floor
floor_divide fmod frac gcd ge greater greater_equal gt hardsigmoid hardswish hardtanh heaviside hypot i0 igamma
igammac index_add index_copy index_fill index_put lcm ldexp le leaky_relu lerp less less_equal lgamma log log10 log1p
log2 logical_and logical_not logical_or logical_xor logit lt masked_fill masked_scatter mish mul multiply mvlgamma
nan_to_num ne neg negative nextafter not_equal polygamma pow rad2deg reciprocal relu relu6 remainder renorm round
rsqrt scatter scatter_add scatter_reduce selu sgn sigmoid sign silu sin sinc sinh sqrt square squeeze sub subtract
swapaxes swapdims t tan tanh threshold transpose tril triu true_divide trunc unsqueeze xlogy zero gelu
alpha_dropout feature_alpha_dropout
"""

_ONCE = """
__and__ __iand__ __ilshift__ __ior__ __irshift__ __ixor__ __lshift__ __or__ __rshift__ __xor__
_adaptive_avg_pool2d _adaptive_avg_pool3d _assert_async _assert_scalar _assert_tensor_metadata _cdist_forward
_convolution _euclidean_dist _functional_assert_scalar _fused_rms_norm _linalg_det _linalg_eigh _linalg_slogdet
_linalg_solve_ex _linalg_svd _log_softmax _native_batch_norm_legit_no_training _pdist_forward _prelu_kernel
_safe_softmax _scaled_dot_product_attention_math _scaled_dot_product_flash_attention_for_cpu _shape_as_tensor _softmax
_stack _to_copy _trilinear _unique2 _unsafe_view _upsample_bicubic2d_aa _upsample_bilinear2d_aa
_upsample_nearest_exact1d _upsample_nearest_exact2d _upsample_nearest_exact3d _weight_norm
adaptive_avg_pool1d adaptive_avg_pool2d adaptive_avg_pool3d adaptive_max_pool1d adaptive_max_pool2d adaptive_max_pool3d
adjoint affine_grid_generator alias alias_copy all allclose amax amin aminmax angle any arange argmax argmin argsort
argwhere atleast_1d atleast_2d atleast_3d avg_pool1d avg_pool2d avg_pool3d bartlett_window batch_norm bilinear bincount
blackman_window block_diag bmm broadcast_tensors broadcast_to bucketize cartesian_prod cat cdist chain_matmul
channel_shuffle cholesky cholesky_inverse cholesky_solve chunk clone column_stack combinations complex concat
concatenate conj constant_pad_nd contiguous conv1d conv2d conv3d conv_tbc conv_transpose1d conv_transpose2d
conv_transpose3d convolution corrcoef cosine_similarity count_nonzero cov cross cummax cummin cumulative_trapezoid det
detach_copy diag diag_embed diagflat diagonal diagonal_copy diagonal_scatter diff dist dot dsplit dstack einsum
embedding equal expand expand_as expand_copy eye fft_fft fft_fft2 fft_fftfreq fft_fftn fft_fftshift
fft_hfft fft_ifft fft_ifft2 fft_ifftn fft_ifftshift fft_ihfft fft_irfft fft_irfft2 fft_irfftn fft_rfft fft_rfft2
fft_rfftfreq fft_rfftn flatten flip fliplr flipud fmax fmin frobenius_norm full full_like gather ger glu grid_sampler
grid_sampler_2d grid_sampler_3d group_norm gru gru_cell hamming_window hann_window hardshrink histc hsplit hstack im2col
imag index index_select inner instance_norm inverse is_floating_point is_nonzero isclose isfinite isin isinf isnan
isneginf isposinf isreal istft item kaiser_window kron kthvalue layer_norm lift lift_fresh lift_fresh_copy
linalg_cholesky linalg_cond linalg_cross linalg_det linalg_diagonal linalg_eig linalg_eigh linalg_eigvals
linalg_eigvalsh linalg_inv linalg_lstsq linalg_matmul linalg_matrix_exp linalg_matrix_norm linalg_matrix_power
linalg_matrix_rank linalg_multi_dot linalg_norm linalg_pinv linalg_qr linalg_slogdet linalg_solve
linalg_solve_triangular linalg_svd linalg_svdvals linalg_tensorinv linalg_tensorsolve linalg_vander linalg_vecdot
linalg_vector_norm linear linspace log_sigmoid log_softmax logaddexp logaddexp2 logcumsumexp logdet logspace logsumexp
lstm lstm_cell masked_select matmul matrix_exp matrix_power max max_pool1d max_pool1d_with_indices max_pool2d
max_pool2d_with_indices max_pool3d max_pool3d_with_indices maximum mean median meshgrid min minimum mm mode moveaxis
movedim msort multinomial mv nanmean nanmedian nanquantile nansum narrow narrow_copy native_batch_norm native_dropout
native_group_norm native_layer_norm new_full new_ones new_zeros nonzero norm normal nuclear_norm numel numpy_T one_hot
ones ones_like outer pad pairwise_distance pdist permute permute_copy pinverse pixel_shuffle pixel_unshuffle polar
positive prelu prod quantile rand rand_like randn randn_like randint randint_like randperm ravel real reflection_pad1d
reflection_pad2d reflection_pad3d repeat repeat_interleave replication_pad1d replication_pad2d replication_pad3d
reshape reshape_as resolve_conj resolve_neg rms_norm rnn_relu rnn_relu_cell rnn_tanh rnn_tanh_cell roll rot90
rrelu rsub scalar_tensor scaled_dot_product_attention searchsorted select select_copy select_scatter signbit size slice
slice_copy slice_scatter slogdet softmax softplus softshrink sort special_entr special_erf special_erfc special_erfcx
special_erfinv special_exp2 special_expit special_expm1 special_gammainc special_gammaincc special_gammaln special_i0
special_i0e special_i1 special_i1e special_log1p special_log_ndtr special_log_softmax special_logit special_logsumexp
special_multigammaln special_ndtr special_ndtri special_polygamma special_psi special_round special_sinc
special_softmax special_xlog1py special_xlogy special_zeta split split_copy split_with_sizes split_with_sizes_copy
squeeze_copy stack std std_mean stft stride sum sum_to_size sym_constrain_range sym_constrain_range_for_size sym_numel
sym_size sym_storage_offset sym_stride t_copy take take_along_dim tensor_split tensordot tile to topk trace
transpose_copy trapezoid trapz tril_indices triu_indices type_as unbind unbind_copy unflatten unfold unfold_copy
unique_consecutive unique_dim unsafe_chunk unsafe_split unsafe_split_with_sizes unsqueeze_copy upsample_bicubic2d
upsample_bilinear2d upsample_linear1d upsample_nearest1d upsample_nearest2d upsample_nearest3d upsample_trilinear3d
vander var var_mean vdot view view_as view_as_complex view_as_real view_copy vsplit vstack where zeros zeros_like
"""

ATEN = frozenset({*_words(_ONCE), *_words(_BOTH), *(f"{name}_" for name in _words(_BOTH))})

# Arithmetic on sizes, by the name it has in a program.
PLAIN = frozenset(
    _words(
        """
        _operator.add _operator.and_ _operator.eq _operator.floordiv _operator.ge _operator.gt _operator.le
        _operator.lshift _operator.lt _operator.mod _operator.mul _operator.ne _operator.neg _operator.or_
        _operator.pos _operator.pow _operator.rshift _operator.sub _operator.truediv math.ceil math.floor math.trunc
        torch._sym_sqrt torch.sym_float torch.sym_int torch.sym_ite torch.sym_max torch.sym_min torch.sym_not
        torch.sym_sqrt
        """
    )
)

# Of these only some overloads: the others need data that nothing checks.
_OVERLOADS = {
    "gru": {"input"},
    "lstm": {"input"},
    "rnn_relu": {"input"},
    "rnn_tanh": {"input"},
}


def listed(target: str) -> bool:
    """Say whether a program may call ``target``: ``torch.ops.aten.<name>.<overload>`` or arithmetic on sizes."""
    parts = target.split(".")
    if len(parts) == 5 and parts[:3] == ["torch", "ops", "aten"]:
        name, overload = parts[3:]
        if overload == "out" or overload.endswith("_out"):
            return False
        return name in ATEN and overload in _OVERLOADS.get(name, {overload})
    return target in PLAIN
