"""The bill of materials of an image in both formats that people ask for: CycloneDX 1.6 and SPDX 2.3, as JSON.

Both are made from the same components, say the same, and depend on nothing else: the same image and manifest give the
same bytes. A document that its own project's validator does not accept is never written.
"""

from __future__ import annotations

import io
import json
import re
import uuid
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from cyclonedx.model import ExternalReference, ExternalReferenceType, HashAlgorithm, HashType, Property, XsUri
from cyclonedx.model.bom import Bom
from cyclonedx.model.component import Component as CdxComponent
from cyclonedx.model.component import ComponentType
from cyclonedx.model.contact import OrganizationalEntity
from cyclonedx.model.license import DisjunctiveLicense, LicenseAcknowledgement, LicenseExpression
from cyclonedx.model.lifecycle import LifecyclePhase, PredefinedLifecycle
from cyclonedx.output.json import JsonV1Dot6
from cyclonedx.schema import SchemaVersion
from cyclonedx.spdx import is_supported_id
from cyclonedx.validation.json import JsonStrictValidator
from packageurl import PackageURL
from spdx_tools.spdx.model.actor import Actor, ActorType
from spdx_tools.spdx.model.checksum import Checksum, ChecksumAlgorithm
from spdx_tools.spdx.model.document import CreationInfo, Document
from spdx_tools.spdx.model.extracted_licensing_info import ExtractedLicensingInfo
from spdx_tools.spdx.model.package import ExternalPackageRef, ExternalPackageRefCategory, Package
from spdx_tools.spdx.model.relationship import Relationship, RelationshipType
from spdx_tools.spdx.model.spdx_no_assertion import SpdxNoAssertion
from spdx_tools.spdx.validation.document_validator import validate_full_spdx_document
from spdx_tools.spdx.validation.uri_validators import validate_url
from spdx_tools.spdx.writer.json import json_writer

import foundry
from foundry import files
from foundry.errors import FoundryError
from foundry.publish.contents import Component, Contents
from foundry.publish.licences import licensing
from foundry.publish.sbom_check import CYCLONEDX, SPDX

TOOL = "patroni-foundry"
_DOCUMENT = "SPDXRef-DOCUMENT"
_IMAGE = "SPDXRef-image"


def write(found: Contents, folder: Path) -> list[Path]:
    """Write sbom.cdx.json and sbom.spdx.json; returns their paths. Raises FoundryError where one is not valid."""
    cyclonedx, other = cyclonedx_text(found), spdx_text(found)
    for name, text in ((CYCLONEDX, cyclonedx), (SPDX, other)):
        files.write(folder / name, text)
    return [folder / CYCLONEDX, folder / SPDX]


def identity(digest: str, purpose: str) -> uuid.UUID:
    """The number of a document about the image with this digest: the same for the same image."""
    return uuid.uuid5(uuid.NAMESPACE_OID, f"patroni-foundry {purpose} {digest}")


def image_purl(manifest: Mapping[str, Any]) -> str:
    """What names the image itself: it is in no registry, so its digest is part of the name."""
    checksum = f"sha256:{manifest['files'][0]['sha256']}"
    version = str(manifest["version"])
    return PackageURL("generic", None, str(manifest["name"]), version, qualifiers={"checksum": checksum}).to_string()


def _homepage(component: Component) -> str | None:
    url = component.homepage
    return url if re.match(r"https?://", url) and not validate_url(url) else None


# CycloneDX


def cyclonedx_text(found: Contents) -> str:
    """The bill of materials as CycloneDX 1.6 JSON. Raises FoundryError where the strict validator refuses it."""
    image = _cyclonedx_image(found.manifest)
    parts = {c.purl: _cyclonedx_part(c) for c in found.components}
    bom = Bom(serial_number=identity(found.digest, "CycloneDX"))
    bom.metadata.timestamp = datetime.fromisoformat(found.manifest["built"])
    bom.metadata.component = image
    bom.metadata.tools.components.add(
        CdxComponent(name=TOOL, version=foundry.__version__, type=ComponentType.APPLICATION)
    )
    # "post-build": what is in it was found by looking into what was built.
    bom.metadata.lifecycles.add(PredefinedLifecycle(LifecyclePhase.POST_BUILD))
    carriers = {c.name: parts[c.purl] for c in found.components if c.kind == "deb"}
    inner = [c for c in found.components if c.inside]
    for component in inner:
        carriers[component.inside].components.add(parts[component.purl])
    outer = [parts[c.purl] for c in found.components if not c.inside]
    bom.components.update(outer)
    bom.register_dependency(image, outer)
    for component in found.components:
        carried = [parts[c.purl] for c in inner if component.kind == "deb" and c.inside == component.name]
        bom.register_dependency(parts[component.purl], [*(parts[p] for p in component.needs), *carried])
    text = JsonV1Dot6(bom).output_as_string(indent=1) + "\n"
    wrong = cyclonedx_errors(text)
    if wrong:
        raise FoundryError(f"{CYCLONEDX}: what was made is not valid CycloneDX 1.6", details="\n".join(wrong[:5]))
    return text


def cyclonedx_errors(text: str) -> list[str]:
    """What CycloneDX's own strict validator finds wrong with a document, by the schema of version 1.6."""
    found = JsonStrictValidator(SchemaVersion.V1_6).validate_str(text, all_errors=True) or ()
    return [str(error.data.message)[:300] for error in found]


def _cyclonedx_image(manifest: Mapping[str, Any]) -> CdxComponent:
    purl = image_purl(manifest)
    return CdxComponent(
        bom_ref=purl,
        type=ComponentType.OPERATING_SYSTEM,
        name=str(manifest["name"]),
        version=str(manifest["version"]),
        purl=PackageURL.from_string(purl),
        hashes=[HashType(alg=HashAlgorithm.SHA_256, content=str(manifest["files"][0]["sha256"]))],
        external_references=[
            ExternalReference(
                type=ExternalReferenceType.DISTRIBUTION,
                url=XsUri(str(row["name"])),
                hashes=[HashType(alg=HashAlgorithm.SHA_256, content=str(row["sha256"]))],
            )
            for row in manifest["files"]
        ],
    )


def _cyclonedx_part(component: Component) -> CdxComponent:
    home = _homepage(component)
    facts = {"file": component.file, "source-package": component.source, "licence-said-in": component.licence.said_in}
    return CdxComponent(
        bom_ref=component.purl,
        type=ComponentType.LIBRARY,
        name=component.name,
        version=component.version,
        description=component.summary or None,
        supplier=OrganizationalEntity(name=component.supplier) if component.supplier else None,
        publisher=component.maintainer or None,
        purl=PackageURL.from_string(component.purl),
        hashes=[HashType(alg=HashAlgorithm.SHA_256, content=component.sha256)],
        licenses=[_cyclonedx_licence(component.licence.expression)] if component.licence.expression else [],
        external_references=[ExternalReference(type=ExternalReferenceType.WEBSITE, url=XsUri(home))] if home else [],
        properties=[Property(name=f"{TOOL}:{name}", value=value) for name, value in facts.items() if value],
    )


def _cyclonedx_licence(expression: str) -> DisjunctiveLicense | LicenseExpression:
    declared = LicenseAcknowledgement.DECLARED
    if is_supported_id(expression):
        return DisjunctiveLicense(id=expression, acknowledgement=declared)
    return LicenseExpression(expression, acknowledgement=declared)


# SPDX


def spdx_text(found: Contents) -> str:
    """The bill of materials as SPDX 2.3 JSON. Raises FoundryError where spdx-tools' validation refuses it."""
    document = _spdx_document(found)
    wrong = [message.validation_message for message in validate_full_spdx_document(document, "SPDX-2.3")]
    if wrong:
        raise FoundryError(f"{SPDX}: what was made is not valid SPDX 2.3", details="\n".join(wrong[:5]))
    stream = io.StringIO()
    # It was validated above, by the same function; what it calls duplicates are none here and cost a deep copy.
    json_writer.write_document_to_stream(document, stream, validate=False, drop_duplicates=False)
    return json.dumps(json.loads(stream.getvalue()), indent=1, ensure_ascii=False) + "\n"


def _spdx_document(found: Contents) -> Document:
    manifest, number = found.manifest, identity(found.digest, "SPDX")
    # CycloneDX's library sorts by itself.
    components = sorted(found.components, key=lambda c: c.purl)
    texts = {ref: text for component in components for ref, text in component.licence.texts}
    return Document(
        creation_info=CreationInfo(
            spdx_version="SPDX-2.3",
            spdx_id=_DOCUMENT,
            name=f"{manifest['name']}-{manifest['version']}",
            document_namespace=f"urn:uuid:{number}",
            creators=[Actor(ActorType.TOOL, f"{TOOL}-{foundry.__version__}")],
            created=datetime.fromisoformat(manifest["built"]).replace(tzinfo=None),
        ),
        packages=[_spdx_image(manifest), *(_spdx_package(c) for c in components)],
        relationships=list(_spdx_relationships(components)),
        extracted_licensing_info=[
            ExtractedLicensingInfo(license_id=ref, extracted_text=text) for ref, text in sorted(texts.items())
        ],
    )


def _spdx_image(manifest: Mapping[str, Any]) -> Package:
    first, *others = manifest["files"]
    # No primary purpose: some tools refuse OPERATING_SYSTEM, which spdx-tools writes, others OPERATING-SYSTEM, which
    # the specification has in 7.24 (https://github.com/spdx/tools-python/issues/827).
    also = "; ".join(f"the same disk as {row['name']}, sha256 {row['sha256']}" for row in others)
    return Package(
        spdx_id=_IMAGE,
        name=str(manifest["name"]),
        version=str(manifest["version"]),
        file_name=str(first["name"]),
        download_location=SpdxNoAssertion(),
        files_analyzed=False,
        checksums=[_spdx_checksum(str(first["sha256"]))],
        license_concluded=SpdxNoAssertion(),
        license_declared=SpdxNoAssertion(),
        comment=also or None,
        external_references=[_spdx_purl(image_purl(manifest))],
        built_date=datetime.fromisoformat(manifest["built"]).replace(tzinfo=None),
    )


def _spdx_package(component: Component) -> Package:
    declared = component.licence.expression
    said = {"built from source package": component.source, "maintainer": component.maintainer}
    return Package(
        spdx_id=_spdx_id(component.purl),
        name=component.name,
        version=component.version,
        file_name=component.file,
        supplier=Actor(ActorType.ORGANIZATION, component.supplier) if component.supplier else SpdxNoAssertion(),
        download_location=SpdxNoAssertion(),
        files_analyzed=False,
        checksums=[_spdx_checksum(component.sha256)],
        homepage=_homepage(component),
        source_info="; ".join(f"{name} {value}" for name, value in said.items() if value) or None,
        # Nobody has looked into the files for what they themselves say.
        license_concluded=SpdxNoAssertion(),
        license_declared=licensing().parse(declared) if declared else SpdxNoAssertion(),
        license_comment=f"as {component.licence.said_in} says" if declared else None,
        summary=component.summary or None,
        external_references=[_spdx_purl(component.purl)],
    )


def _spdx_relationships(components: Sequence[Component]) -> Iterator[Relationship]:
    carriers = {c.name: c for c in components if c.kind == "deb"}
    yield Relationship(_DOCUMENT, RelationshipType.DESCRIBES, _IMAGE)
    for component in components:
        holder = _spdx_id(carriers[component.inside].purl) if component.inside else _IMAGE
        yield Relationship(holder, RelationshipType.CONTAINS, _spdx_id(component.purl))
    for component in components:
        for other in component.needs:
            yield Relationship(_spdx_id(component.purl), RelationshipType.DEPENDS_ON, _spdx_id(other))


def _spdx_id(purl: str) -> str:
    # Letters, digits, "." and "-" alone are allowed, so two purls could look alike: the number keeps them apart.
    name = re.sub(r"[^A-Za-z0-9.]+", "-", purl.partition("?")[0].removeprefix("pkg:"))
    return f"SPDXRef-{name}-{uuid.uuid5(uuid.NAMESPACE_URL, purl).hex[:8]}"


def _spdx_checksum(sha256: str) -> Checksum:
    return Checksum(ChecksumAlgorithm.SHA256, sha256)


def _spdx_purl(purl: str) -> ExternalPackageRef:
    return ExternalPackageRef(ExternalPackageRefCategory.PACKAGE_MANAGER, "purl", purl)
