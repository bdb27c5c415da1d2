//! The messages that are exchanged, with only the fields that are used here (containerd 1.0 and later).

/// `containerd.services.images.v1.GetImageRequest`.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct GetImage {
    #[prost(string, tag = "1")]
    pub(super) name: String,
}

/// `containerd.services.images.v1.GetImageResponse`.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct GotImage {
    #[prost(message, optional, tag = "1")]
    pub(super) image: Option<Image>,
}

/// `containerd.services.images.v1.ListImagesRequest`, without filters.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct ListImages {}

/// `containerd.services.images.v1.ListImagesResponse`.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct ImageList {
    #[prost(message, repeated, tag = "1")]
    pub(super) images: Vec<Image>,
}

/// `containerd.services.images.v1.Image`.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Image {
    #[prost(string, tag = "1")]
    pub(super) name: String,
    #[prost(message, optional, tag = "3")]
    pub(super) target: Option<Target>,
}

/// `containerd.types.Descriptor`.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Target {
    #[prost(string, tag = "1")]
    pub(super) media_type: String,
    #[prost(string, tag = "2")]
    pub(super) digest: String,
    #[prost(int64, tag = "3")]
    pub(super) size: i64,
}

/// `containerd.services.content.v1.InfoRequest`.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct InfoQuestion {
    #[prost(string, tag = "1")]
    pub(super) digest: String,
}

/// `containerd.services.content.v1.InfoResponse`.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct InfoAnswer {
    #[prost(message, optional, tag = "1")]
    pub(super) info: Option<Content>,
}

/// `containerd.services.content.v1.Info`.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Content {
    #[prost(int64, tag = "2")]
    pub(super) size: i64,
}

/// `containerd.services.content.v1.ReadContentRequest`; a size of 0 means all of it.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct ReadContent {
    #[prost(string, tag = "1")]
    pub(super) digest: String,
    #[prost(int64, tag = "2")]
    pub(super) offset: i64,
    #[prost(int64, tag = "3")]
    pub(super) size: i64,
}

/// `containerd.services.content.v1.ReadContentResponse`.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Piece {
    #[prost(int64, tag = "1")]
    pub(super) offset: i64,
    #[prost(bytes = "vec", tag = "2")]
    pub(super) data: Vec<u8>,
}
