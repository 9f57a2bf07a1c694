// The parts of the zip format that PyTorch's files use: stored entries, with 64-bit sizes where 32 bits do not do.

export const LOCAL_HEADER = 0x04034b50;
export const LOCAL_BYTES = 30;
export const CENTRAL_HEADER = 0x02014b50;
export const CENTRAL_BYTES = 46;
export const END = 0x06054b50;
export const END_BYTES = 22;
export const END64 = 0x06064b50;
export const END64_BYTES = 56;
export const LOCATOR64 = 0x07064b50;
export const LOCATOR64_BYTES = 20;
/** Extra field with sizes and offset in 64 bits. */
export const EXTRA64 = 0x0001;
/** Extra field that PyTorch fills to align what follows. */
export const EXTRA_PADDING = 0x4246;
/** Stands for a number that is in an extra field. */
export const IN_EXTRA = 0xffffffff;
export const COUNT_IN_END64 = 0xffff;
