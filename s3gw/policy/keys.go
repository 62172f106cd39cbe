package policy

import "strings"

func words(s string) map[string]bool {
	m := map[string]bool{}
	for _, w := range strings.Fields(s) {
		m[strings.ToLower(w)] = true
	}
	return m
}

// conditionKeys are the keys that there are, AWS's global ones and those of S3,
// IAM and STS. Some of them no request of ours ever has; they are absent then.
var conditionKeys = words(`
	aws:CalledVia aws:CalledViaFirst aws:CalledViaLast aws:CurrentTime aws:EpochTime aws:FederatedProvider
	aws:MultiFactorAuthAge aws:MultiFactorAuthPresent aws:PrincipalAccount aws:PrincipalArn aws:PrincipalIsAWSService
	aws:PrincipalOrgID aws:PrincipalOrgPaths aws:PrincipalServiceName aws:PrincipalServiceNamesList aws:PrincipalType
	aws:referer aws:RequestedRegion aws:ResourceAccount aws:ResourceOrgID aws:ResourceOrgPaths aws:SecureTransport
	aws:SourceAccount aws:SourceArn aws:SourceIdentity aws:SourceIp aws:SourceOrgID aws:SourceOrgPaths aws:SourceOwner
	aws:SourceVpc aws:SourceVpce aws:SourceVpcArn aws:TagKeys aws:TokenIssueTime aws:UserAgent aws:userid aws:username
	aws:ViaAWSService aws:VpcSourceIp aws:AssumedRoot aws:ChatbotSourceArn aws:Ec2InstanceSourceVpc
	aws:Ec2InstanceSourcePrivateIPv4 aws:VpceAccount aws:VpceOrgID aws:VpceOrgPaths
	s3:AccessGrantsInstanceArn s3:AccessPointNetworkOrigin s3:authType s3:DataAccessPointAccount s3:DataAccessPointArn
	s3:delimiter s3:ExistingJobOperation s3:ExistingJobPriority s3:if-match s3:if-none-match s3:InventoryAccessibleOptionalFields
	s3:JobSuspendedCause s3:LocationConstraint s3:locationconstraint s3:max-keys s3:object-lock-legal-hold
	s3:object-lock-mode s3:object-lock-remaining-retention-days s3:object-lock-retain-until-date s3:ObjectCreationOperation
	s3:prefix s3:RequestJobOperation s3:RequestJobPriority s3:RequestObjectTagKeys s3:ResourceAccount s3:signatureage
	s3:signatureversion s3:TlsVersion s3:versionid s3:x-amz-acl s3:x-amz-content-sha256 s3:x-amz-copy-source
	s3:x-amz-grant-full-control s3:x-amz-grant-read s3:x-amz-grant-read-acp s3:x-amz-grant-write s3:x-amz-grant-write-acp
	s3:x-amz-metadata-directive s3:x-amz-object-ownership s3:x-amz-server-side-encryption
	s3:x-amz-server-side-encryption-aws-kms-key-id s3:x-amz-server-side-encryption-customer-algorithm s3:x-amz-storage-class
	s3:x-amz-website-redirect-location
	iam:PolicyARN iam:PermissionsBoundary iam:PassedToService iam:AWSServiceName iam:AssociatedResourceArn iam:OrganizationsPolicyId
	sts:ExternalId sts:RoleSessionName sts:SourceIdentity sts:TransitiveTagKeys sts:DurationSeconds sts:AWSServiceName`)

// tagKeys are keys that end with the name of a tag.
var tagKeys = []string{
	"s3:existingobjecttag/", "s3:requestobjecttag/", "s3:buckettag/", "aws:principaltag/", "aws:requesttag/", "aws:resourcetag/",
	"iam:resourcetag/",
}

// knownKey reports whether there is a condition key of this name. Claims of an
// identity provider are known by their ends: PROVIDER:aud and the like.
func knownKey(name string) bool {
	low := lower(name)
	if conditionKeys[low] {
		return true
	}
	for _, k := range tagKeys {
		if strings.HasPrefix(low, k) && len(low) > len(k) {
			return true
		}
	}
	return false
}

// claims are the ends of the keys that trust policies have for identity providers.
var claims = words("aud sub amr azp oaud email")

func knownClaim(name string) bool {
	at := strings.LastIndexByte(name, ':')
	return at > 0 && claims[lower(name[at+1:])]
}

// s3Actions are the actions of S3. Whoever writes one that does not exist means
// another, and a policy that silently lacks it is a door.
var s3Actions = words(`
	AbortMultipartUpload AssociateAccessGrantsIdentityCenter BypassGovernanceRetention CreateAccessPoint CreateBucket
	CreateBucketMetadataTableConfiguration CreateJob CreateSession DeleteAccessPoint DeleteBucket
	DeleteBucketMetadataTableConfiguration DeleteBucketOwnershipControls DeleteBucketPolicy DeleteBucketPublicAccessBlock
	DeleteBucketWebsite DeleteObject DeleteObjectTagging DeleteObjectVersion DeleteObjectVersionTagging GetAccelerateConfiguration
	GetAccessPoint GetAccessPointPolicy GetAccountPublicAccessBlock GetAnalyticsConfiguration GetBucketAcl GetBucketCORS
	GetBucketLocation GetBucketLogging GetBucketMetadataTableConfiguration GetBucketNotification GetBucketObjectLockConfiguration
	GetBucketOwnershipControls GetBucketPolicy GetBucketPolicyStatus GetBucketPublicAccessBlock GetBucketRequestPayment
	GetBucketTagging GetBucketVersioning GetBucketWebsite GetEncryptionConfiguration GetIntelligentTieringConfiguration
	GetInventoryConfiguration GetLifecycleConfiguration GetMetricsConfiguration GetObject GetObjectAcl GetObjectAttributes
	GetObjectLegalHold GetObjectRetention GetObjectTagging GetObjectTorrent GetObjectVersion GetObjectVersionAcl
	GetObjectVersionAttributes GetObjectVersionForReplication GetObjectVersionTagging GetObjectVersionTorrent
	GetReplicationConfiguration InitiateReplication ListAccessPoints ListAllMyBuckets ListBucket ListBucketMultipartUploads
	ListBucketVersions ListMultipartUploadParts ListTagsForResource ObjectOwnerOverrideToBucketOwner PauseReplication
	PutAccelerateConfiguration PutAccessPointPolicy PutAccountPublicAccessBlock PutAnalyticsConfiguration PutBucketAcl
	PutBucketCORS PutBucketLogging PutBucketNotification PutBucketObjectLockConfiguration PutBucketOwnershipControls
	PutBucketPolicy PutBucketPublicAccessBlock PutBucketRequestPayment PutBucketTagging PutBucketVersioning PutBucketWebsite
	PutEncryptionConfiguration PutIntelligentTieringConfiguration PutInventoryConfiguration PutLifecycleConfiguration
	PutMetricsConfiguration PutObject PutObjectAcl PutObjectLegalHold PutObjectRetention PutObjectTagging PutObjectVersionAcl
	PutObjectVersionTagging PutReplicationConfiguration ReplicateDelete ReplicateObject ReplicateTags RestoreObject TagResource
	UntagResource UpdateBucketMetadataJournalTableConfiguration UpdateBucketMetadataInventoryTableConfiguration
	UpdateObjectEncryption`)

// knownAction reports whether a pattern of an action of S3, without its prefix,
// can mean anything.
func knownAction(name string) bool {
	low := lower(name)
	if !strings.ContainsAny(low, "*?") {
		return s3Actions[low]
	}
	p, ok := parsePattern(low, true, false)
	if !ok {
		return false
	}
	for a := range s3Actions {
		if p.match(a, nil) {
			return true
		}
	}
	return false
}
